"""Tests of claims on a study's table, and their presentation on the terminal and in Markdown.

A claim about a difference holds if the whole 95 % interval of the difference is on the claimed side of the
threshold, and fails if it is entirely on the other; otherwise it is undecided. Differences are paired by
seed and, where both sides say which test images they recognised, by image: then the interval also covers the
choice of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.table import Table
from rich.text import Text

from fl_ppae.leakage.intervals import paired_difference
from fl_ppae.studies.hits import stacked
from fl_ppae.studies.summary import numbers

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
COLUMNS = ("claim", "data set", "verdict", "difference", "setting", "compared")
_STYLES = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow"}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim for one data set in one setting.

    Attributes:
        claim: `1a` ... `3b`, or the name of a split. statement: the claim in words.
        compared: the two sides with their means.
        value, low, high: the difference or rank correlation and its 95 % interval; NaN if unknown.
        n: number of seeds, or of configurations for a rank correlation.
        threshold: the value with which the interval is compared.
    """

    claim: str
    statement: str
    dataset: str
    setting: str
    compared: str
    verdict: str
    value: float
    low: float
    high: float
    n: int
    threshold: float

    def cells(self) -> tuple[str, ...]:
        """Its texts, in the order of `COLUMNS`."""
        claim = f"{self.claim}: {self.statement}"
        found = difference(self.value, self.low, self.high)
        return (claim, self.dataset, self.verdict, found, self.setting, self.compared)


@dataclass(frozen=True)
class Claim:
    """The claim that accuracies differ by more than `threshold` if `at_least`, otherwise by less."""

    name: str
    statement: str
    dataset: str
    setting: str
    threshold: float
    at_least: bool

    def test(self, better: pd.DataFrame, worse: pd.DataFrame, sides: tuple[str, str]) -> Verdict:
        """Test it on the rows of two configurations named `sides`; undecided if no seed has both."""
        both = _accuracy(better).join(_accuracy(worse), how="inner", lsuffix="_better", rsuffix="_worse")
        if both.empty:
            text = f"no seed has both {sides[0]} and {sides[1]}"
            return self._verdict(text, UNDECIDED, math.nan, math.nan, math.nan, 0)
        one, other = both["accuracy_better"].to_numpy(), both["accuracy_worse"].to_numpy()
        found = paired_difference(one, other)
        hits, others_hits = stacked(both["hits_better"]), stacked(both["hits_worse"])
        if hits is not None and others_hits is not None and hits.shape == others_hits.shape:
            found = paired_difference(hits, others_hits)
        text = f"{sides[0]}: {one.mean():.3f}; {sides[1]}: {other.mean():.3f}"
        verdict = decide(found.low, found.high, self.threshold, at_least=self.at_least)
        return self._verdict(text, verdict, found.value, found.low, found.high, found.n)

    def _verdict(self, text: str, verdict: str, value: float, low: float, high: float, n: int) -> Verdict:
        where = (self.name, self.statement, self.dataset, self.setting)
        return Verdict(*where, text, verdict, value, low, high, n, self.threshold)


def decide(low: float, high: float, threshold: float, *, at_least: bool) -> str:
    """Test whether the value is above the threshold, or below it if not `at_least`."""
    above, below = low > threshold, high < threshold
    if not (above or below):  # also if an end is NaN
        return UNDECIDED
    return HOLDS if above == at_least else FAILS


def difference(value: float, low: float, high: float) -> str:
    """A value with its sign and interval; `-` if it is NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


def tally(verdicts: Iterable[Verdict]) -> str:
    """How many claims hold, fail and are undecided."""
    found = [one.verdict for one in verdicts]
    return ", ".join(f"{found.count(word)} {word}" for word in (HOLDS, FAILS, UNDECIDED))


def verdict_table(verdicts: Sequence[Verdict], note: str) -> Table:
    """The verdicts as a table for the terminal."""
    table = Table(
        *COLUMNS,
        title=f"Verdicts: {tally(verdicts)}",
        title_justify="left",
        caption=note,
        caption_justify="left",
    )
    for one in verdicts:
        claim, dataset, verdict, *rest = one.cells()
        table.add_row(claim, dataset, Text(verdict, style=_STYLES[verdict]), *rest)
    return table


def verdict_markdown(verdicts: Sequence[Verdict], note: str) -> list[str]:
    """The verdicts as lines of Markdown."""
    lines = [f"### Verdicts: {tally(verdicts)}", ""]
    for row in (COLUMNS, ["---"] * len(COLUMNS), *(one.cells() for one in verdicts)):
        lines.append(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |")
    return [*lines, "", note, ""]


def _accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Known accuracies, and which images were recognised, by seed."""
    found = rows[["seed"]].assign(accuracy=numbers(rows, "accuracy"), hits=rows.get("hits", ""))
    return found.dropna().set_index("seed")
