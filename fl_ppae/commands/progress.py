"""Progress of a run, read from its run directory: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import progress as rich_progress
from rich.console import Console

from fl_ppae.commands.output import timed
from fl_ppae.privacy.figures import written
from fl_ppae.runs.status import summary_so_far


def rounds_bar(console: Console) -> rich_progress.Progress:
    """A bar of completed rounds; nothing if `console` is not a terminal."""
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("rounds"),
        rich_progress.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Progress:
    """Follows one run directory; `poll` it now and then."""

    def __init__(self, run_directory: Path, rounds: int, console: Console) -> None:
        self._directory = run_directory
        self._rounds = rounds
        self._console = console
        self._say = timed(console)
        self._phase = "starting"
        self._seen = 0
        self._bar = rounds_bar(console)
        self._task = self._bar.add_task(self._phase, total=rounds)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def poll(self) -> None:
        """Show what is new in the run directory."""
        for row in self._new_rounds():
            self._bar.update(self._task, completed=int(row["round"]))
            self._line(self._describe(row))
        phase = str(summary_so_far(self._directory).get("phase") or self._phase)
        if phase != self._phase:
            self._phase = phase
            self._bar.update(self._task, description=phase)
            self._line(phase)

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

    def _line(self, text: str) -> None:
        if not self._console.is_terminal:
            self._say(text)
