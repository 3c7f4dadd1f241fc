"""A study in its folder: its settings, its table, and the cells that remain.

A study's folder holds `cells.csv` (see `table`), `study.json` (settings, versions, machine, sources),
`summary.csv` (means and intervals over seeds), `verdicts.json`, `results.md`, `figures/*.png`, the chosen
images under `data/` and the workers' output under `logs/`.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from fl_ppae.errors import UserError
from fl_ppae.files import finite, home, read_json, write_json
from fl_ppae.hardware import processor_name, usable_cores
from fl_ppae.paths import path_of
from fl_ppae.runs.directory import versions
from fl_ppae.studies import table
from fl_ppae.studies.cells import StudyCell
from fl_ppae.studies.kinds import Kind
from fl_ppae.studies.workers import Outcome, Work, run_cells


@dataclass(frozen=True)
class Study:
    """A study of one kind in its folder."""

    path: Path
    kind: Kind

    @property
    def file(self) -> Path:
        """Its `cells.csv`."""
        return self.path / table.FILE

    def table(self) -> pd.DataFrame:
        """Its valid rows; see `table.read`."""
        return table.read(self.file)

    def lock(self) -> FileLock:
        """Take the lock on the study.

        Raises:
            UserError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{self.path}: another process is running this study") from None
        return lock


def study_folder(output_dir: str, name: str) -> Path:
    """The folder of a study: `output_dir`, or its name under `~/.fl_ppae/studies`."""
    return path_of(output_dir, "--output-dir") if output_dir else home() / "studies" / name


def record_settings(study: Study, settings: Mapping[str, Any], command: str) -> None:
    """Write `study.json`, or check that an existing study has the same settings.

    `command` is the command line that runs it again.

    Raises:
        UserError: the settings differ.
    """
    path = study.path / "study.json"
    settings = json.loads(json.dumps(finite(settings)))  # as JSON returns them: lists, not tuples
    if path.is_file():
        stored = read_json(path)
        different = [key for key, value in settings.items() if stored.get("settings", {}).get(key) != value]
        if stored.get("name") != study.kind.name or different:
            other = stored.get("name") != study.kind.name
            what = f"study {stored.get('name')!r}" if other else ", ".join(different)
            raise UserError(f"{study.path} holds another study ({what} differ); give another --output-dir")
        return
    document = {
        "name": study.kind.name,
        "command": command,
        "settings": settings,
        "versions": versions(),
        "machine": {
            "processor": processor_name(),
            "cores": usable_cores(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "seconds": 0.0,
    }
    write_json(path, finite(document))


def run_and_record(
    study: Study,
    cells: Sequence[StudyCell],
    work: Work,
    workers: int,
    on_outcome: Callable[[Outcome], None],
) -> None:
    """Run `cells` and append their rows as they end; a failed cell adds a row with its error."""
    start = time.monotonic()
    outcomes = run_cells(cells, work, min(workers, max(1, len(cells))), study.path / "logs")
    try:
        for outcome in outcomes:
            rows: Iterable[Mapping[str, Any]] = outcome.rows
            if outcome.error:
                rows = [{**outcome.cell.columns(), "error": outcome.error}]
            table.append(study.file, study.kind.columns, rows)
            on_outcome(outcome)
    finally:
        outcomes.close()  # type: ignore[attr-defined]
        _add_seconds(study, time.monotonic() - start, workers)


def remaining(study: Study, cells: Sequence[StudyCell], *, retry_failed: bool) -> list[StudyCell]:
    """The cells without a row; with `retry_failed` also those that failed."""
    done = table.finished(study.table(), retry_failed=retry_failed)
    return [cell for cell in cells if cell.name not in done]


def _add_seconds(study: Study, seconds: float, workers: int) -> None:
    path = study.path / "study.json"
    if path.is_file():
        document = read_json(path)
        document["seconds"] = round(document.get("seconds", 0.0) + seconds, 1)
        document["workers"] = workers
        write_json(path, document)
