"""How results name the source of their images, and any attack on the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ATTACK_MARK = " - ATTACK RUN: "


def data_label(summary: Mapping[str, Any]) -> str:
    """The source of the images, as every result shows it, followed by any attack on the run."""
    source = str(summary.get("data_source") or "unknown data")
    attack = attack_in_words(summary)
    return f"{source}{ATTACK_MARK}{attack}" if attack else source


def is_loud(label: str) -> bool:
    """Whether a source must stand out: it is a stand-in, or the run was under attack."""
    return label.startswith("stand-in") or ATTACK_MARK in label


def marked_source(label: str) -> str:
    """The source as figures show it: a stand-in says that it is not real data."""
    return label + (" - NOT REAL DATA" if label.startswith("stand-in") else "")


def attack_in_words(summary: Mapping[str, Any]) -> str:
    """Such as `label-flip by hospital-0, hospital-3`; empty for a run without adversaries."""
    found = summary.get("adversary")
    return f"{found['behaviour']} by {', '.join(found['hospitals'])}" if found else ""
