"""How a run ended: the `status` in its `summary.json`, and the exception for a failed run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from fl_ppae.errors import printable
from fl_ppae.files import write_json
from fl_ppae.runs.reading import Unreadable, read_document
from fl_ppae.runs.shapes import SummaryShape


class RunFailed(Exception):
    """A run that did not complete; the message is the cause, in one line."""


def summary_so_far(run_directory: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty if there is none yet, or none that can be read."""
    try:
        return read_document(run_directory / "summary.json", SummaryShape)
    except Unreadable:
        return {}


def mark_failed(run_directory: Path, cause: str) -> str:
    """Mark a run that didn't complete as failed. Returns its own error if it has one, else `cause`.

    On a full disk the run stays as it was, which shows as interrupted.
    """
    summary = summary_so_far(run_directory)
    if summary.get("status") == "failed" and summary.get("error"):
        return one_line(summary["error"])
    if summary.get("status") != "completed":
        with contextlib.suppress(OSError):
            write_json(run_directory / "summary.json", {**summary, "status": "failed", "error": cause})
    return cause


def cause_of(error: BaseException) -> str:
    """Why a run ended, in one line. Ctrl-C and signals interrupt it."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{printable(os.fsdecode(error.filename))}: {error.strerror}")
    return one_line(error) or type(error).__name__


def one_line(text: object) -> str:
    """The text in one line: every run of white space becomes one space."""
    return " ".join(str(text).split())
