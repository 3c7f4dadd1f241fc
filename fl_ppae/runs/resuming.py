"""Finds an interrupted run and opens its directory again, as it stood after its checkpoint."""

from __future__ import annotations

from pathlib import Path

from fl_ppae.errors import UserError
from fl_ppae.runs.checkpoint import Checkpoint, read_checkpoint
from fl_ppae.runs.directory import TABLES, RunDirectory
from fl_ppae.runs.reading import Row, Unreadable, read_table, read_text
from fl_ppae.runs.stored import RUNNING, find_run, open_run


def find_interrupted(name: str) -> Path:
    """The directory of the run of this path or name, which did not complete.

    Raises:
        UserError: there is none, it is complete or still running, or it has no usable checkpoint.
    """
    run = find_run(name)
    if run.state == "completed":
        raise UserError(f"the run {run.name} is complete; start a new one")
    if run.state == RUNNING:
        raise UserError(f"the run {run.name} is still running; wait for it, or end it first")
    _checkpoint_of(run.path)
    return run.path


def reopen(path: Path) -> tuple[RunDirectory, Checkpoint]:
    """Open the directory of an interrupted run, held by this process, and drop rows of unfinished rounds.

    Raises:
        UserError: it completed in the meantime, a table is damaged, or the checkpoint is.
    """
    checkpoint, stored = _checkpoint_of(path), open_run(path)
    if stored.summary.get("status") == "completed":
        raise UserError(f"the run {stored.name} is complete; start a new one")
    run = RunDirectory(path, dict(stored.summary), seconds=dict(stored.summary.get("seconds") or {}))
    for name in TABLES:
        _keep_rounds(run, name, checkpoint.round)
    run.summary.pop("error", None)
    resumed = [*(stored.summary.get("resumed") or []), checkpoint.round]
    run.update(status="running", phase="starting", resumed=resumed)
    return run, checkpoint


def _checkpoint_of(path: Path) -> Checkpoint:
    """The checkpoint of the run in `path`, if it is its own."""
    checkpoint, stored = read_checkpoint(path), open_run(path)
    if checkpoint.run != stored.config.get("run"):
        raise UserError(f"the checkpoint in {path} is another run's; restore its own, or start the run again")
    return checkpoint


def _keep_rounds(run: RunDirectory, name: str, last: int) -> None:
    """Drop the rows of later rounds than `last`, and a line that was torn."""
    path = run.path / name
    if not path.exists() and not last:
        return
    try:
        rows = read_table(path, TABLES[name], growing=True)
        text = read_text(path)
    except Unreadable as problem:
        raise UserError(f"{path} is unreadable: {problem}; restore it, or start the run again") from None
    header, newline, _ = text.partition("\n")
    if newline and header != ",".join(TABLES[name]):
        raise UserError(
            f"{path} has other columns than this version of fl-ppae writes; resume the run with the version "
            "that started it"
        )
    torn = not text.endswith("\n")
    kept = [row for row in rows if int(row.get("round") or 0) <= last]
    if name == "rounds.csv" and [int(row["round"]) for row in kept] != list(range(1, last + 1)):
        raise UserError(f"{path} lacks rounds up to {last}, the checkpoint's; start the run again")
    if torn or len(kept) < len(rows):
        _rewrite(run, name, kept)


def _rewrite(run: RunDirectory, name: str, rows: list[Row]) -> None:
    if rows:
        run.rewrite(name, TABLES[name], rows)
    else:  # its first row writes the header
        (run.path / name).unlink()
