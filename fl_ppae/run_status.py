"""How a run ended: the `status` in its `summary.json`, and the exception for a run that failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_ppae.files import read_json, write_json

ATTACK_MARK = " - ATTACK RUN: "


class RunFailed(Exception):
    """A run that did not complete; its message is the cause, in one line."""


def summary_so_far(run_directory: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty while there is none."""
    try:
        summary: dict[str, Any] = read_json(run_directory / "summary.json")
    except (OSError, json.JSONDecodeError):
        return {}
    return summary


def data_label(summary: Mapping[str, Any]) -> str:
    """The source of the images, in the words that every result carries, and who attacked the run if any."""
    source = str(summary.get("data_source") or "unknown data")
    attack = attack_in_words(summary)
    return f"{source}{ATTACK_MARK}{attack}" if attack else source


def is_loud(label: str) -> bool:
    """Whether a source must be marked: a stand-in's, or of a run under attack."""
    return label.startswith("stand-in") or ATTACK_MARK in label


def marked_source(label: str) -> str:
    """The source as figures print it: a stand-in says that it is not real data."""
    return label + (" - NOT REAL DATA" if label.startswith("stand-in") else "")


def attack_in_words(summary: Mapping[str, Any]) -> str:
    """Such as `label-flip by hospital-0, hospital-3`; empty for a run without adversaries."""
    found = summary.get("adversary")
    return f"{found['behaviour']} by {', '.join(found['hospitals'])}" if found else ""


def mark_failed(run_directory: Path, cause: str) -> str:
    """Let the summary of a run that is over say so. Returns the cause; the run's own comes before `cause`."""
    summary = summary_so_far(run_directory)
    if summary.get("status") == "failed" and summary.get("error"):
        return one_line(summary["error"])
    if summary.get("status") != "completed":
        write_json(run_directory / "summary.json", {**summary, "status": "failed", "error": cause})
    return cause


def one_line(text: object) -> str:
    """The text with every run of white space, line ends too, as one space."""
    return " ".join(str(text).split())
