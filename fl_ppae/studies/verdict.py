"""One claim, tested on a study's table: the same for every study, in JSON, Markdown and on the terminal.

A claim about a difference holds if the whole 95 % interval of the difference is on the claimed side of its
threshold, does not hold if it is wholly on the other, else it is undecided. Differences are paired by seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.table import Table
from rich.text import Text

from fl_ppae.studies.summary import mean_interval, numbers

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
COLUMNS = ("claim", "data set", "verdict", "difference", "setting", "compared")
_STYLES = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow"}


@dataclass(frozen=True)
class Verdict:
    """One claim on one data set in one setting.

    Attributes:
        claim: `1a` ... `3b`, or a split's name. statement: what it says.
        compared: the two sides with their means.
        value, low, high: the difference (or rank correlation) with its 95 % interval; NaN if unknown.
        n: seeds, or configurations of a rank correlation.
        threshold: what the interval was compared with.
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
        """Its texts, by `COLUMNS`."""
        claim = f"{self.claim}: {self.statement}"
        found = difference(self.value, self.low, self.high)
        return (claim, self.dataset, self.verdict, found, self.setting, self.compared)


@dataclass(frozen=True)
class Claim:
    """That accuracy differs, by more than `threshold` if `at_least`, else by less."""

    name: str
    statement: str
    dataset: str
    setting: str
    threshold: float
    at_least: bool

    def test(self, better: pd.DataFrame, worse: pd.DataFrame, sides: tuple[str, str]) -> Verdict:
        """On the rows of two configurations, called `sides`; undecided where no seed has both."""
        both = _accuracy(better).join(_accuracy(worse), how="inner", lsuffix="_better", rsuffix="_worse")
        if both.empty:
            text = f"no seed has both {sides[0]} and {sides[1]}"
            return self._verdict(text, UNDECIDED, math.nan, math.nan, math.nan, 0)
        one, other = both["accuracy_better"].to_numpy(), both["accuracy_worse"].to_numpy()
        mean = mean_interval(one - other)
        text = f"{sides[0]}: {one.mean():.3f}; {sides[1]}: {other.mean():.3f}"
        verdict = decide(mean.low, mean.high, self.threshold, at_least=self.at_least)
        return self._verdict(text, verdict, mean.value, mean.low, mean.high, mean.n)

    def _verdict(self, text: str, verdict: str, value: float, low: float, high: float, n: int) -> Verdict:
        where = (self.name, self.statement, self.dataset, self.setting)
        return Verdict(*where, text, verdict, value, low, high, n, self.threshold)


def decide(low: float, high: float, threshold: float, *, at_least: bool) -> str:
    """`at_least`: the claim is that the value is above the threshold; else that it is below."""
    above, below = low > threshold, high < threshold
    if not (above or below):  # an unknown end too
        return UNDECIDED
    return HOLDS if above == at_least else FAILS


def difference(value: float, low: float, high: float) -> str:
    """A value with its interval and sign; NaN is unknown."""
    if math.isnan(value):
        return "-"
    return f"{value:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


def tally(verdicts: Iterable[Verdict]) -> str:
    """How many hold, do not, are undecided."""
    found = [one.verdict for one in verdicts]
    return ", ".join(f"{found.count(word)} {word}" for word in (HOLDS, FAILS, UNDECIDED))


def verdict_table(verdicts: Sequence[Verdict], note: str) -> Table:
    """For the terminal."""
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
    """Lines of Markdown."""
    lines = [f"### Verdicts: {tally(verdicts)}", ""]
    for row in (COLUMNS, ["---"] * len(COLUMNS), *(one.cells() for one in verdicts)):
        lines.append(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |")
    return [*lines, "", note, ""]


def _accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Known accuracies by seed."""
    return rows[["seed"]].assign(accuracy=numbers(rows, "accuracy")).dropna().set_index("seed")
