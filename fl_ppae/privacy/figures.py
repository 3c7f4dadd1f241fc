"""An epsilon and what stands behind it. Whatever shows an epsilon writes it with `written` or `mark`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FORMAL, NOMINAL, NONE, REFUTED = BASES = ("formal", "nominal", "none", "refuted")
"""From strongest to weakest: a guarantee; a number that guarantees nothing; no number, because something left
without noise; a number that its hospital's own claim contradicts."""

_UNKNOWN = " of unknown basis"  # in a run of another version
_MARKS = {FORMAL: "", NOMINAL: " nominal", NONE: " nominal", REFUTED: " refuted"}


@dataclass(frozen=True)
class Figure:
    """An epsilon, None if there is no number, and its basis, one of `BASES`."""

    epsilon: float | None
    basis: str


def largest(figures: Iterable[Figure]) -> Figure:
    """The figure of all hospitals together, for a record that stands in one of them once.

    The largest epsilon, on the weakest basis; no number if one hospital has none.
    """
    every = tuple(figures)
    if not every:
        return Figure(None, NONE)
    numbers = [figure.epsilon for figure in every if figure.epsilon is not None]
    weakest = max((figure.basis for figure in every), key=BASES.index)
    return Figure(max(numbers) if len(numbers) == len(every) else None, weakest)


def written(
    epsilon: float | str | None, basis: str, *, digits: int = 2, nothing: str = "-", brief: bool = False
) -> str:
    """An epsilon with its mark, such as "4.00 nominal, not a guarantee".

    Args:
        epsilon: a number or its text; None or empty if there is none.
        nothing: shown without a number.
        brief: only the word "nominal" or "refuted".
    """
    if epsilon is None or epsilon == "":
        return nothing + mark(basis, brief=brief) if basis == REFUTED else nothing
    return f"{float(epsilon):.{digits}f}" + mark(basis, brief=brief)


def mark(basis: str, *, brief: bool = False) -> str:
    """What must follow a number that is no guarantee; empty for one that is."""
    word = _MARKS.get(basis, _UNKNOWN)
    return word if brief or not word else f"{word}, not a guarantee"
