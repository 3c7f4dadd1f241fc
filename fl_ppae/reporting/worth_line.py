"""A run's headline: whether joining is worth it, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_ppae.privacy.figures import NONE, written

_NOTHING = "-"
# On official BloodMNIST, longer training raised a briefly trained baseline by 0.058.
BRIEF = 0.06


def headline(summary: Mapping[str, Any]) -> str:
    """Such as "Worth joining? No: mean gain -0.06 ..."; empty for a run that did not measure it.

    "Yes" needs a mean gain whose interval lies above `BRIEF`, and no hospital that gains less: baselines are
    trained briefly. "No" needs a mean gain that is not above 0. Everything else is "not shown".
    """
    found = summary.get("worth_joining")
    if not found:
        return ""
    low, high = found["interval"]["mean_gain"]
    alone = list(found["alone"].values())
    epsilon = written(
        summary.get("epsilon_max"),
        summary.get("epsilon_max_basis") or NONE,
        alone=summary.get("epsilon_alone_max"),
        brief=True,
    )
    return (
        f"Worth joining? {_answer(found).capitalize()}: mean gain {_signed(found['mean_gain'])} "
        f"({_signed(low)} to {_signed(high)}), worst hospital {_signed(found['worst_gain'])}; "
        f"alone {_number(sum(alone) / len(alone))}, server alone {_number(found['server_alone'])}, "
        f"pooled without privacy {_number(found['pooled'])} (trained briefly); epsilon {epsilon}."
    )


def _answer(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]["mean_gain"]
    if None in (low, high):
        return "not shown"
    if low > BRIEF and found["worst_gain"] > BRIEF:
        return "yes"
    return "no" if high <= 0 or found["mean_gain"] <= 0 else "not shown"


def _signed(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:+.3f}"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"
