"""What the privacy card says about the records: repeats, overlaps of splits, absent classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_ppae.privacy.figures import FORMAL, written
from fl_ppae.privacy.groups import MAX_COPIES
from fl_ppae.privacy.repeated_records import holders


def about_records(summary: Mapping[str, Any], *, deployed: bool) -> str:
    """What was found in the data, and what a record pays that stands in it several times."""
    found = summary["data_findings"]["in_words"]
    whose = "the server's own data" if deployed else "the data"
    lines = [f"- In {whose}: {line}." for line in found] or [
        f"- In {whose}, no image stands twice, none has one colour, and each split has every class."
    ]
    return "\n".join(lines) + "\n\n" + _groups(summary["repeated_records"])


def _groups(costs: list[Mapping[str, Any]] | None) -> str:
    if costs is None:
        return (
            "That hospitals hold disjoint records is **assumed**, not checked: no one sees the records of "
            "all. Only then is the epsilon of the federation the largest of theirs. A record that two "
            "hospitals hold pays the composition of both. A record that stands several times in one hospital "
            "has the guarantee of a group; the hospital's own log says so, and the number does not leave it."
        )
    if not costs:
        return (
            "No record stands twice in what hospitals released, within a hospital or between two (checked: "
            "decoded pixels, before any acquisition shift). So the epsilon of the federation is the largest "
            "of theirs, not the sum."
        )
    lines = [
        "**Hospitals do not hold disjoint records, or hold one several times** (checked: decoded pixels, "
        "before any acquisition shift). The epsilons above are those of a record that stands once. These "
        "images have the guarantee of a group, over all their copies in all hospitals:",
        "",
        "| images | updates, all copies added or removed | everything, all copies replaced |",
        "|---|---|---|",
    ]
    lines += [
        f"| {holders(cost)} | {_number(cost, 'epsilon')} | {_number(cost, 'epsilon_replace')} |"
        for cost in costs
    ]
    lines += [
        "",
        "The first epsilon is proven like that of one record, the second conjectured like it. None: a single "
        f"record has no guarantee either, or a hospital holds more than {MAX_COPIES} copies.",
    ]
    return "\n".join(lines)


def _number(cost: Mapping[str, Any], key: str) -> str:
    """Runs of earlier versions state no basis: they had no joint noise."""
    return written(cost[key], cost.get("basis", FORMAL), digits=3, nothing="none")
