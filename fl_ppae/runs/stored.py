"""Reads run directories: configuration, summary and tables, as far as they are there and whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError, did_you_mean, printable
from fl_ppae.files import home
from fl_ppae.paths import path_of
from fl_ppae.privacy.figures import FORMAL, NOMINAL, NONE, Figure
from fl_ppae.runs.directory import TABLES
from fl_ppae.runs.liveness import is_alive
from fl_ppae.runs.reading import Row, Unreadable, check_arrays, read_document, read_table
from fl_ppae.runs.shapes import AuditShape, ConfigShape, LedgerShape, Shape, SummaryShape
from fl_ppae.source_label import data_label

RUNNING, INTERRUPTED, UNREADABLE = "running", "interrupted", "unreadable"
_AUDIT = "audit/results.json"
_DOCUMENTS: dict[str, type[Shape]] = {
    "config.json": ConfigShape,
    "summary.json": SummaryShape,
    "ledger.json": LedgerShape,
    _AUDIT: AuditShape,
}
_ARRAYS = ("encoder.safetensors", "classifier.safetensors")
_IN_A_NAME = re.compile(r"-(\d{8}T\d{6}Z)-")


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
        """The run directory's name, fit to be shown."""
        return printable(self.path.name)

    @property
    def values(self) -> dict[str, Any]:
        """The run's resolved keys."""
        return self.config.get("config") or {}

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
        alone = self.summary.get("epsilon_alone_max")
        return Figure(number, basis or basis_of({"epsilon": number, **updates}), alone)

    @property
    def state(self) -> str:
        """How the run stands: `completed`, `failed`, `running`; or `interrupted`, if its process is gone
        and nothing says how it ended; or `unreadable`, if nothing says anything."""
        if "summary.json" in self.problems:
            return UNREADABLE
        status = str(self.summary.get("status", "unknown"))
        return INTERRUPTED if status == RUNNING and not is_alive(self.path) else status

    @cached_property
    def problems(self) -> dict[str, str]:
        """The files that can't be read, each with what is wrong. A file that was never written is none."""
        return dict(self._problems())

    def _problems(self) -> Iterator[tuple[str, str]]:
        for name in (*_DOCUMENTS, *TABLES, *_ARRAYS):
            path = self.path / name
            if not _is_there(path) and not self._must_have(name):
                continue
            try:
                if name in _DOCUMENTS:
                    read_document(path, _DOCUMENTS[name])
                elif name in TABLES:
                    self._table(name)
                else:
                    check_arrays(path)
            except Unreadable as problem:
                yield name, str(problem)

    def _must_have(self, name: str) -> bool:
        return name == "summary.json" or (name == "config.json" and self._status == "completed")

    @property
    def _status(self) -> str:
        return str(self.summary.get("status", "unknown"))

    def _table(self, name: str) -> list[Row]:
        return read_table(self.path / name, TABLES[name], growing=self._status != "completed")

    @property
    def started(self) -> str:
        """When the run started, as UTC in ISO format: as it recorded.

        Runs of earlier versions did not: by their name, or else their oldest file. Empty if the summary is
        unreadable and the name has no time either.
        """
        recorded = self.summary.get("started")
        if recorded:
            return str(recorded)
        if found := _IN_A_NAME.search(self.name):
            return _iso(datetime.strptime(found[1], "%Y%m%dT%H%M%S%z"))
        if not self.summary:
            return ""
        try:
            oldest = min(path.lstat().st_mtime for path in self.path.iterdir())
        except (OSError, ValueError):  # not ours to look into, or empty by now
            oldest = 0.0
        return _iso(datetime.fromtimestamp(oldest, UTC))

    @property
    def notices(self) -> list[str]:
        """What a reader must know before the results: that there are more to come, or that some are lost."""
        found = []
        if self.state == RUNNING:
            planned = self.values.get("num-server-rounds", "?")
            done = f"{len(self.rows('rounds.csv'))} of {planned} rounds"
            phase = self.summary.get("phase", "starting")
            found.append(f"{self.name} is still running ({phase}, {done} so far): this is not its result")
        if self.state == INTERRUPTED:
            why = self.summary.get("error") or "its process is gone"
            found.append(f"{self.name} was interrupted, {why}: this is not its result")
        found += [f"{self.path / file} is unreadable: {problem}" for file, problem in self.problems.items()]
        return found

    def rows(self, file: str) -> list[Row]:
        """The rows of one of its CSV files; none if it doesn't exist or can't be read."""
        try:
            return self._table(file)
        except Unreadable:
            return []

    @property
    def ledger(self) -> dict[str, Any]:
        """Its `ledger.json`.

        Raises:
            UserError: it can't be read.
        """
        try:
            return read_document(self.path / "ledger.json", LedgerShape)
        except Unreadable as problem:
            raise UserError(f"{self.path / 'ledger.json'} is unreadable: {problem}") from None

    @property
    def audit(self) -> dict[str, Any] | None:
        """The results of its audit; None if there was none or they can't be read."""
        return _document(self.path, _AUDIT)

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
            "state": self.state,
            "notices": self.notices,
            **self.config,
            "summary": self.summary,
            "hospital_rows": {name: rows[-1] for name, rows in self.hospitals().items()},
        }


def runs_directory() -> Path:
    """The default directory of runs."""
    return home() / "runs"


def open_run(path: Path) -> StoredRun:
    """The run in this directory, however far it got and whatever happened to its files."""
    return StoredRun(path, _document(path, "config.json") or {}, _document(path, "summary.json") or {})


def all_runs() -> list[StoredRun]:
    """The runs under `runs_directory()`, oldest first."""
    found = [open_run(path) for path in runs_directory().glob("*/") if _is_run(path)]
    return sorted(found, key=lambda run: (run.started, run.name))


def find_run(name: str) -> StoredRun:
    """The run with this path or this name under `runs_directory()`; `latest` is the one that started last.

    Raises:
        UserError: there is no such run, or its configuration or summary can't be read.
    """
    if name == "latest":
        runs = all_runs()
        if not runs:
            raise UserError(f"there are no runs under {runs_directory()} yet")
        return _readable(runs[-1])
    for place in (name, str(runs_directory() / name)):
        if name and (path := _run_at(place)):
            return _readable(open_run(path))
    known = [run.name for run in all_runs()]
    raise UserError(f"no run {name!r}{did_you_mean(name, [*known, 'latest'])}")


def _run_at(place: str) -> Path | None:
    try:
        path = path_of(place, "RUN")
    except UserError:
        if "/" in place:
            raise
        return None  # it may still be a name
    return path.resolve() if _is_run(path) else None


def _readable(run: StoredRun) -> StoredRun:
    for file in ("summary.json", "config.json"):
        if file in run.problems:
            raise UserError(f"the run {run.name} is unreadable: {run.path / file}: {run.problems[file]}")
    return run


def _document(path: Path, name: str) -> dict[str, Any] | None:
    try:
        return read_document(path / name, _DOCUMENTS[name])
    except Unreadable:
        return None


def _is_run(path: Path) -> bool:
    return any(_is_there(path / name) for name in ("summary.json", "config.json"))


def _is_there(path: Path) -> bool:
    """Whether anything has this path, also a broken link; False too where the path itself is impossible."""
    try:
        path.lstat()
    except PermissionError:  # of a folder above
        return True
    except OSError:
        return False
    return True


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
