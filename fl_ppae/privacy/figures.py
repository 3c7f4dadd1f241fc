"""An epsilon and what stands behind it. Whatever shows an epsilon writes it with `written` or `mark`,
or names it with `metric_name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FORMAL, NOMINAL, NONE, REFUTED = BASES = ("formal", "nominal", "none", "refuted")
"""From strongest to weakest: a guarantee; a number that guarantees nothing; no number, because something left
without noise; a number that its hospital's own claim contradicts.

A guarantee by joint noise is weaker than the first: its basis is `formal_if` and names the assumption."""

_UNKNOWN = " of unknown basis"  # in a run of another version
_MARKS = {FORMAL: "", NOMINAL: " nominal", NONE: " nominal", REFUTED: " refuted"}
_ASSUMED = re.compile(rf"{FORMAL} if (\d+) are honest")


@dataclass(frozen=True)
class Figure:
    """An epsilon and its basis.

    Attributes:
        epsilon: None if there is no number.
        basis: one of `BASES`, or `formal_if`.
        alone: what it is if all other hospitals collude; None if it assumes nothing of them.
    """

    epsilon: float | None
    basis: str
    alone: float | None = None


def formal_if(honest: int | None) -> str:
    """The basis of a guarantee that assumes this many honest hospitals in a round; `FORMAL` for None."""
    return FORMAL if honest is None else f"{FORMAL} if {honest} are honest"


def assumed_honest(basis: str) -> int | None:
    """How many honest hospitals in a round a basis assumes; None if it assumes nothing of the others."""
    found = _ASSUMED.fullmatch(basis)
    return int(found[1]) if found else None


def is_guarantee(basis: str) -> bool:
    """True if the number is a guarantee, perhaps under an assumption about the other hospitals."""
    return basis == FORMAL or assumed_honest(basis) is not None


def largest(figures: Iterable[Figure]) -> Figure:
    """The figure of all hospitals together, for a record that stands in one of them once.

    The largest epsilon, on the weakest basis; no number if one hospital has none.
    """
    every = tuple(figures)
    if not every:
        return Figure(None, NONE)
    weakest = max((figure.basis for figure in every), key=_weakness)
    if any(figure.epsilon is None for figure in every):
        return Figure(None, weakest)
    alone = [figure.epsilon if figure.alone is None else figure.alone for figure in every]
    assumes = any(figure.alone is not None for figure in every)
    return Figure(_most(figure.epsilon for figure in every), weakest, _most(alone) if assumes else None)


def written(
    epsilon: float | str | None,
    basis: str,
    *,
    alone: float | str | None = None,
    digits: int = 2,
    nothing: str = "-",
    brief: bool = False,
) -> str:
    """An epsilon with its mark, such as "4.00 nominal, not a guarantee".

    Args:
        epsilon: a number or its text; None or empty if there is none.
        alone: what it is if all other hospitals collude; None or empty if it assumes nothing of them.
        nothing: shown without a number.
        brief: a short mark, such as "nominal".
    """
    if epsilon is None or epsilon == "":
        return nothing + mark(basis, brief=brief) if basis == REFUTED else nothing
    besides = "" if alone in (None, "") else f"; {float(alone or 0):.{digits}f} if all others collude"
    return f"{float(epsilon):.{digits}f}" + mark(basis, brief=brief) + besides


def mark(basis: str, *, brief: bool = False) -> str:
    """What must follow a number that is no guarantee, or one that assumes something; else empty."""
    honest = assumed_honest(basis)
    if honest is not None:
        who = f"{honest} hospitals" if brief else f"at least {honest} hospitals in a round"
        return f" if {who} are honest"
    word = _MARKS.get(basis, _UNKNOWN)
    return word if brief or not word else f"{word}, not a guarantee"


def metric_name(name: str, basis: str) -> str:
    """The name of an epsilon that is shown without its mark, such as "epsilon_max_nominal"."""
    return name + mark(basis, brief=True).replace(" ", "_")


def _weakness(basis: str) -> tuple[int, int]:
    honest = assumed_honest(basis)
    return (BASES.index(FORMAL), honest) if honest is not None else (BASES.index(basis), 0)


def _most(values: Iterable[float | None]) -> float:
    return max(value for value in values if value is not None)
