"""How a run ended: the `status` in its `summary.json`, and the exception for a failed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fl_ppae.files import read_json, write_json


class RunFailed(Exception):
    """A run that did not complete; the message is the cause, in one line."""


def summary_so_far(run_directory: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty if there is none yet."""
    try:
        summary: dict[str, Any] = read_json(run_directory / "summary.json")
    except (OSError, json.JSONDecodeError):
        return {}
    return summary


def mark_failed(run_directory: Path, cause: str) -> str:
    """Mark a run that didn't complete as failed. Returns its own error if it has one, else `cause`."""
    summary = summary_so_far(run_directory)
    if summary.get("status") == "failed" and summary.get("error"):
        return one_line(summary["error"])
    if summary.get("status") != "completed":
        write_json(run_directory / "summary.json", {**summary, "status": "failed", "error": cause})
    return cause


def one_line(text: object) -> str:
    """The text in one line: every run of white space becomes one space."""
    return " ".join(str(text).split())
