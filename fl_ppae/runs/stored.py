"""Reads run directories: configuration, summary and tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.files import home, read_json
from fl_ppae.privacy.figures import FORMAL, NOMINAL, NONE, Figure
from fl_ppae.runs.status import summary_so_far
from fl_ppae.source_label import data_label

Row = dict[str, str]


def basis_of(guarantee: Mapping[str, Any]) -> str:
    """The basis in a row of the summary's guarantees; runs of earlier versions state only if it is formal."""
    if guarantee.get("basis"):
        return str(guarantee["basis"])
    if guarantee.get("formal"):
        return FORMAL
    return NONE if guarantee.get("epsilon") is None else NOMINAL


@dataclass(frozen=True)
class StoredRun:
    """The contents of a run directory, as far as the run got."""

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        """The run directory's name."""
        return self.path.name

    @property
    def values(self) -> dict[str, Any]:
        """The run's resolved keys."""
        values: dict[str, Any] = self.config.get("config", {})
        return values

    @property
    def data_label(self) -> str:
        """The source of the images and any adversary, as stated on every result."""
        source = self.config.get("data_source") or {}
        return data_label({"data_source": source.get("label"), **self.summary})

    @property
    def epsilon(self) -> Figure:
        """The epsilon of the encoder updates, the largest over hospitals.

        Runs of earlier versions state no basis: it is then that of the updates' guarantee.
        """
        number, basis = self.summary.get("epsilon_max"), self.summary.get("epsilon_max_basis")
        updates = (self.summary.get("guarantees") or {}).get("updates") or {}
        return Figure(number, basis or basis_of({"epsilon": number, **updates}))

    def rows(self, file: str) -> list[Row]:
        """The rows of one of its CSV files; none if it doesn't exist."""
        try:
            with (self.path / file).open(newline="", encoding="utf-8") as lines:
                return list(csv.DictReader(lines))
        except FileNotFoundError:
            return []

    def hospitals(self) -> dict[str, list[Row]]:
        """Each hospital's rows, round by round."""
        rows: dict[str, list[Row]] = {}
        for row in self.rows("hospitals.csv"):
            rows.setdefault(row["hospital"], []).append(row)
        return rows

    def document(self) -> dict[str, Any]:
        """The run as one JSON document."""
        return {
            "run_directory": str(self.path),
            **self.config,
            "summary": self.summary,
            "hospital_rows": {name: rows[-1] for name, rows in self.hospitals().items()},
        }


def runs_directory() -> Path:
    """The default directory of runs."""
    return home() / "runs"


def open_run(path: Path) -> StoredRun:
    """The run in this directory, however far it got."""
    try:
        config = read_json(path / "config.json")
    except (OSError, json.JSONDecodeError):
        config = {}
    return StoredRun(path, config, summary_so_far(path))


def all_runs() -> list[StoredRun]:
    """The runs under `runs_directory()`, oldest first."""
    folders = [path for path in runs_directory().glob("*/") if (path / "summary.json").is_file()]
    return [open_run(path) for path in sorted(folders, key=lambda path: path.stat().st_ctime)]


def find_run(name: str) -> StoredRun:
    """The run with this path or this name under `runs_directory()`; `latest` is the newest.

    Raises:
        UserError: there is no such run.
    """
    runs = all_runs()
    if name == "latest":
        if not runs:
            raise UserError(f"there are no runs under {runs_directory()} yet")
        return runs[-1]
    for path in (Path(name).expanduser(), runs_directory() / name):
        if (path / "summary.json").is_file():
            return open_run(path.absolute())
    known = [run.name for run in runs]
    raise UserError(f"no run {name!r}{did_you_mean(name, [*known, 'latest'])}")
