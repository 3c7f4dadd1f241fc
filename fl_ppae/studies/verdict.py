"""One claim, tested on a study's table: the same for every study, in JSON, Markdown and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

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
        return (claim, self.dataset, self.verdict, self.difference(), self.setting, self.compared)

    def difference(self) -> str:
        """The value with its interval and sign."""
        if math.isnan(self.value):
            return "-"
        interval = "" if math.isnan(self.low) else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.value:+.3f}{interval}"


def decide(low: float, high: float, threshold: float, *, at_least: bool) -> str:
    """`at_least`: the claim is that the value is above the threshold; else that it is below."""
    above, below = low > threshold, high < threshold
    if not (above or below):  # an unknown end too
        return UNDECIDED
    return HOLDS if above == at_least else FAILS


def tally(verdicts: Iterable[Verdict]) -> str:
    """How many hold, do not, are undecided."""
    found = [one.verdict for one in verdicts]
    return ", ".join(f"{found.count(word)} {word}" for word in (HOLDS, FAILS, UNDECIDED))


def verdict_table(verdicts: Sequence[Verdict], note: str) -> Table:
    """For the terminal."""
    table = Table(
        title=f"Verdicts: {tally(verdicts)}", title_justify="left", caption=note, caption_justify="left"
    )
    for name in COLUMNS:
        table.add_column(name)
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
