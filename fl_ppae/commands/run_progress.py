"""Tells what happens in a run, read from its run directory: the server is in another process."""

from __future__ import annotations

import csv
from pathlib import Path

from fl_ppae.privacy.figures import written
from fl_ppae.runs.status import summary_so_far
from fl_ppae.steps import watcher


class RunProgress:
    """Follows one run directory; `poll` it now and then. Tells whoever watches when it is made."""

    def __init__(self, run_directory: Path, rounds: int) -> None:
        self._directory = run_directory
        self._rounds = rounds
        self._watcher = watcher()
        self._told: set[str] = set()
        self._seen = 0
        self._new_rounds()  # of a run that goes on

    def poll(self) -> None:
        """Tell what is new in the run directory."""
        for row in self._new_rounds():
            self._watcher.count(int(row["round"]), self._rounds)
            self._watcher.step(self._describe(row), aloud=True)
        phase = str(summary_so_far(self._directory).get("phase") or "")
        if phase == "training" and self._seen < self._rounds:
            phase = f"training, round {self._seen + 1}/{self._rounds}"
        if phase:
            kind = phase.partition(",")[0]
            self._watcher.step(phase, aloud=kind not in self._told)
            self._told.add(kind)

    def _new_rounds(self) -> list[dict[str, str]]:
        try:
            text = (self._directory / "rounds.csv").read_text(encoding="utf-8")
        except OSError:
            return []
        whole = text[: text.rfind("\n") + 1]  # the last line may be incomplete
        rows = list(csv.DictReader(whole.splitlines()))
        new, self._seen = rows[self._seen :], len(rows)
        return new

    def _describe(self, row: dict[str, str]) -> str:
        parts = [f"round {row['round']}/{self._rounds}", f"{row['hospitals_trained']} hospitals trained"]
        if row["epsilon_max"]:
            parts.append(f"epsilon max {written(row['epsilon_max'], row['epsilon_basis'])}")
        for key in ("accuracy", "reconstruction_loss"):
            if row[key]:
                parts.append(f"{key.replace('_', ' ')} {float(row[key]):.4g}")
        return ", ".join(parts)
