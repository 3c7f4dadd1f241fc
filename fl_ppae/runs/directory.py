"""A run's directory: created once, never overwritten, complete after every round."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common.logger import log

from fl_ppae.errors import UserError
from fl_ppae.files import csv_cell, finite, home, write_atomically, write_json
from fl_ppae.paths import FILE, FOLDER, MISSING, check_can_hold_files, kind_of, path_of
from fl_ppae.runs.tracking import Tracker

ROUND_COLUMNS = (
    "round",
    "hospitals_trained",
    "hospitals_declined",
    "hospitals_excluded",
    "epsilon_max",
    "epsilon_basis",
    "accuracy",
    "auc",
    "reconstruction_loss",
    "cosine",
    "cosine_centred",
    "cosine_mismatched",
    "retrieval_top1",
    "balanced_accuracy",
    "worst_recall",
    "ece",
)
HOSPITAL_COLUMNS = (
    "round",
    "hospital",
    "records",
    "noise_multiplier",
    "sample_rate",
    "steps",
    "epsilon",
    "epsilon_basis",
    "epsilon_alone",
    "status",
    "reason",
    "loss",
    "clipped_fraction",
    "signal_to_noise",
)
TIMING_COLUMNS = ("phase", "seconds")
TABLES = {"rounds.csv": ROUND_COLUMNS, "hospitals.csv": HOSPITAL_COLUMNS, "timing.csv": TIMING_COLUMNS}
_PACKAGES = ("flwr", "torch", "opacus", "dp-accounting", "ray", "numpy", "scikit-learn")


@dataclass
class RunDirectory:
    """Writes a run's artefacts under `path`; `summary.json` is complete at any moment.

    `phases` are those under way, the outermost first. `seconds` is the time by phase. Times go to
    `timing.csv` and nowhere else, so that the tables of two runs with the same seed are identical.
    `trackers` receive each round as it is appended.
    """

    path: Path
    summary: dict[str, Any] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    trackers: tuple[Tracker, ...] = ()

    def update(self, **values: Any) -> None:
        """Update `summary.json`."""
        self.summary |= values
        self.summary["seconds"] = {phase: round(spent, 2) for phase, spent in self.seconds.items()}
        write_json(self.path / "summary.json", finite(self.summary))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the current phase, and time it."""
        self.phases.append(name)
        self.step("")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.phases.remove(name)
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            self._append("timing.csv", {"phase": name, "seconds": round(spent, 3)})
        if self.phases:
            self.step("")

    def step(self, text: str, *, aloud: bool = False) -> None:
        """As `steps.Watcher`: `summary.json` tells the phase and the step, for whoever follows the run."""
        self.summary["phase"] = ", ".join(filter(None, (*self.phases[-1:], text)))
        # Not worth waiting for the disk: it only tells what is being done.
        write_json(self.path / "summary.json", finite(self.summary), durable=False)

    def count(self, done: int, total: int) -> None:
        """As `steps.Watcher`: `rounds.csv` already tells how many rounds are done."""

    def append_round(self, row: Mapping[str, Any]) -> None:
        """One row of `rounds.csv`; columns without a value stay empty."""
        self._append("rounds.csv", row)
        self._notify(lambda tracker: tracker.log_round(row))

    def append_hospital(self, row: Mapping[str, Any]) -> None:
        """One row of `hospitals.csv`."""
        self._append("hospitals.csv", row)

    def correct(self, name: str, applies: Callable[[dict[str, str]], bool], **values: str) -> None:
        """Change columns of the rows that `applies` accepts, in a table already written."""
        path = self.path / name
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = tuple(reader.fieldnames or ())
            rows = [{**row, **values} if applies(row) else row for row in reader]
        self.rewrite(name, columns, rows)

    def rewrite(self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
        """Replace a table as a whole."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / name, text.getvalue().encode())

    def sync_tables(self) -> None:
        """Wait until the rows so far are on disk."""
        for name in TABLES:
            if (self.path / name).exists():
                with (self.path / name).open("rb") as file:
                    os.fsync(file.fileno())

    def close_trackers(self) -> None:
        """Send the trackers the result of the run."""
        self._notify(lambda tracker: tracker.close(self.summary))

    def _notify(self, what: Callable[[Tracker], None]) -> None:
        """A tracker that fails is dropped: its server's problems must not end a run."""
        for tracker in self.trackers:
            try:
                what(tracker)
            except Exception as problem:
                log(WARNING, "%s was dropped from this run: %s", type(tracker).__name__, problem)
                self.trackers = tuple(other for other in self.trackers if other is not tracker)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        path = self.path / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, TABLES[name], restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({key: csv_cell(value) for key, value in row.items()})


def new_run_path(output_dir: str, simulation: str, run_id: str) -> Path:
    """The directory of a new run: `output_dir`, or a unique name under `~/.fl_ppae/runs`."""
    if output_dir:
        return path_of(output_dir, "output-dir").resolve()
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return home() / "runs" / f"{simulation}-{started}-{run_id}"


def check_free(path: Path) -> None:
    """Refuse a directory that is not empty, since a run is never overwritten, or that can't be written.

    Raises:
        UserError: it is one of them.
    """
    kind = kind_of(path)
    if kind == FILE or (kind == FOLDER and any(path.iterdir())):
        raise _taken(path)
    if kind not in (FOLDER, MISSING):
        raise UserError(f"output-dir {path}: {kind}; name a new or empty directory")
    check_can_hold_files(path, "output-dir")


def _taken(path: Path) -> UserError:
    return UserError(f"output-dir {path} is taken; name a new or empty directory")


def claim(path: Path) -> None:
    """Create `path` for one run, even if two ask for it at the same moment.

    Raises:
        UserError: it is not empty, or another run has just taken it.
    """
    check_free(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        (path / "figures").mkdir()
    except FileExistsError:
        raise _taken(path) from None


def start_run(path: Path, simulation: str) -> RunDirectory:
    """Write a summary that says that the run is under way, into a directory that was claimed for it."""
    run = RunDirectory(path)
    started = datetime.now(UTC).isoformat(timespec="microseconds")
    run.update(status="running", started=started, phase="starting", simulation=simulation)
    return run


def create_run_directory(path: Path, simulation: str) -> RunDirectory:
    """Claim `path` and start a run in it.

    Raises:
        UserError: as `claim`.
    """
    claim(path)
    return start_run(path, simulation)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that may affect a result."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"fl-ppae": importlib.metadata.version("fl-ppae"), "python": platform.python_version(), **found}
