"""The paper's claims (Wu et al., LNCS 15256, 2025, pp. 37-46) as tests on a study's table.

Only the paper's abstract is public, without its tables. So the claims are tested in the direction in which
the abstract states them, on this study's data; no number of the paper is compared with. What "little" and
"a lot" mean is fixed here, before the results: 0.02 and 0.05 of accuracy.

A claim about a difference holds where the whole 95 % interval of the difference is on the claimed side of
its threshold, does not hold where it is wholly on the other, else it is undecided. Differences are paired
by seed. The verdicts are not corrected for their number: of twenty, one may be wrong by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from fl_ppae.studies.statistics import mean_interval
from fl_ppae.studies.table import Row, number
from fl_ppae.studies.verdict import UNDECIDED, Verdict, decide

LITTLE = 0.02
A_LOT = 0.05
NOTE = (
    "The paper's own tables are not public, so these verdicts are directional: they say whether this study's "
    "data agree with the abstract's claims, not whether the paper's numbers were reproduced."
)
_Z = 1.959964
_WORDS = {"lr": "LR", "resnet18": "ResNet18"}


@dataclass(frozen=True)
class _Choice:
    """Rows of one configuration: what a cell is but for data set and seed."""

    classifier: str
    encoding: str
    autoencoder: str = "none"
    privacy: str = "none"
    scope: str = "none"
    hospitals: str = "1"

    def of(self, row: Row) -> bool:
        return not row["error"] and all(row[key] == value for key, value in vars(self).items())

    def __str__(self) -> str:
        what = self.autoencoder if self.encoding == "trained" else "raw pixels"
        dp = "" if self.encoding != "trained" else ", no DP"
        if self.privacy != "none":
            dp = f", epsilon {self.privacy}"
        return f"{_WORDS[self.classifier]} on {what}{dp}"


def paper_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every claim on every data set, centrally under the paper's scope and federated under a formal one.

    In the order of the claims.
    """
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    epsilons = sorted({row["privacy"] for row in rows if row["privacy"] != "none"}, key=float)
    settings = [
        ("central, scope encoder", "encoder", "1"),
        ("5 hospitals, scope autoencoder", "autoencoder", "5"),
    ]
    found: list[Verdict] = []
    for dataset in datasets:
        own = [row for row in rows if row["dataset"] == dataset]
        for setting, scope, hospitals in settings:
            found += _claims(own, dataset, setting, scope, hospitals, epsilons)
        found.append(_cosine_ranks_leakage(own, dataset))
    return sorted(found, key=lambda one: one.claim)


def _claims(
    rows: list[Row], dataset: str, setting: str, scope: str, hospitals: str, epsilons: list[str]
) -> Iterable[Verdict]:
    def trained(classifier: str, autoencoder: str, privacy: str = "none") -> _Choice:
        own_scope = "none" if privacy == "none" else scope
        return _Choice(classifier, "trained", autoencoder, privacy, own_scope, hospitals)

    def test(
        claim: str, statement: str, better: _Choice, worse: _Choice, threshold: float, *, at_least: bool
    ) -> Verdict:
        return _difference(rows, claim, statement, (dataset, setting), (better, worse), threshold, at_least)

    yield test(
        "1a",
        "a simple autoencoder raises LR",
        trained("lr", "fc"),
        _Choice("lr", "pixels"),
        0.0,
        at_least=True,
    )
    yield test(
        "2a",
        f"conv costs ResNet18 less than {LITTLE}",
        trained("resnet18", "conv"),
        _Choice("resnet18", "pixels"),
        -LITTLE,
        at_least=True,
    )
    for epsilon in epsilons:
        yield test(
            "1b",
            f"DP then costs LR more than {A_LOT}",
            trained("lr", "fc"),
            trained("lr", "fc", epsilon),
            A_LOT,
            at_least=True,
        )
        yield test(
            "2b",
            f"DP costs it less than {LITTLE}",
            trained("resnet18", "conv"),
            trained("resnet18", "conv", epsilon),
            LITTLE,
            at_least=False,
        )
        yield test(
            "3a",
            "under DP conv with ResNet18 is the choice",
            trained("resnet18", "conv", epsilon),
            trained("lr", "fc", epsilon),
            0.0,
            at_least=True,
        )


def _difference(
    rows: list[Row],
    claim: str,
    statement: str,
    where: tuple[str, str],
    choices: tuple[_Choice, _Choice],
    threshold: float,
    at_least: bool,
) -> Verdict:
    one, other = ({row["seed"]: number(row, "accuracy") for row in rows if c.of(row)} for c in choices)
    both = [seed for seed in one if seed in other]
    pairs = [(one[seed], other[seed]) for seed in both]
    known = [(left, right) for left, right in pairs if left is not None and right is not None]
    dataset, setting = where
    if not known:
        text = f"no seed has both {choices[0]} and {choices[1]}"
        unknown = (math.nan, math.nan, math.nan)
        return Verdict(claim, statement, dataset, setting, text, UNDECIDED, *unknown, 0, threshold)
    mean = mean_interval([left - right for left, right in known])
    left, right = (float(np.mean(values)) for values in zip(*known, strict=True))
    text = f"{choices[0]}: {left:.3f}; {choices[1]}: {right:.3f}"
    verdict = decide(mean.low, mean.high, threshold, at_least=at_least)
    numbers = (mean.value, mean.low, mean.high, mean.n, threshold)
    return Verdict(claim, statement, dataset, setting, text, verdict, *numbers)


def _cosine_ranks_leakage(rows: list[Row], dataset: str) -> Verdict:
    """Whether the paper's leakage metric orders configurations as an attacker's success does."""
    statement = "the cosine tells which encoding leaks"
    setting = "all trained encoders"
    by_cell = {
        row["cell"]: (number(row, "cosine"), number(row, "inversion_ssim"))
        for row in rows
        if not row["error"] and row["encoding"] == "trained"
    }
    grouped: dict[str, list[tuple[float, float]]] = {}
    for cell, (cosine, ssim) in by_cell.items():
        if cosine is not None and ssim is not None:
            grouped.setdefault(cell.rpartition("/")[0], []).append((abs(cosine), ssim))
    points = [np.mean(values, axis=0) for values in grouped.values()]
    value = low = high = math.nan
    verdict = UNDECIDED
    if len(points) > 4:
        cosines, ssims = np.array(points).T
        value = float(spearmanr(cosines, ssims).statistic)
        if not math.isnan(value):
            # Fieller, Hartley and Pearson 1957: Fisher's z of a rank correlation, variance 1.06 / (n - 3).
            half = _Z * math.sqrt(1.06 / (len(points) - 3))
            centre = math.atanh(max(-0.999999, min(0.999999, value)))
            low, high = math.tanh(centre - half), math.tanh(centre + half)
            verdict = decide(low, high, 0.0, at_least=True)
    text = f"rank correlation of |cosine| and inversion SSIM, {len(points)} configurations"
    return Verdict("3b", statement, dataset, setting, text, verdict, value, low, high, len(points), 0.0)
