"""Tests of the paper's claims (Wu et al., LNCS 15256, 2025, pp. 37-46) on a study's table.

Only the paper's abstract is public, not its tables. The tests therefore check whether this study's data
agree with the direction of each claim; they compare no numbers with the paper's. "Little" and "a lot" were
fixed before the results as 0.02 and 0.05 of accuracy. The verdicts are not corrected for multiple testing:
one in twenty may be wrong by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from fl_ppae.leakage.intervals import rank_correlation
from fl_ppae.studies.summary import numbers
from fl_ppae.studies.table import succeeded
from fl_ppae.studies.verdict import Claim, Verdict, decide

LITTLE = 0.02
A_LOT = 0.05
NOTE = (
    "The paper's own tables are not public, so these verdicts are directional: they say whether this study's "
    "data agree with the abstract's claims, not whether the paper's numbers were reproduced."
)
_WORDS = {"lr": "LR", "resnet18": "ResNet18"}
# Name, scope and hospitals of the paper's setting, and of one with a guarantee.
_SETTINGS = (
    ("central, scope encoder", "encoder", "1"),
    ("5 hospitals, scope autoencoder", "autoencoder", "5"),
)


@dataclass(frozen=True)
class _Choice:
    """One configuration: everything that identifies a cell except data set and seed."""

    classifier: str
    encoding: str
    autoencoder: str = "none"
    privacy: str = "none"
    scope: str = "none"
    hospitals: str = "1"

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        keys = vars(self)
        return rows[(rows[list(keys)] == list(keys.values())).all(axis=1)]

    def __str__(self) -> str:
        what = self.autoencoder if self.encoding == "trained" else "raw pixels"
        dp = "" if self.encoding != "trained" else ", no DP"
        if self.privacy != "none":
            dp = f", epsilon {self.privacy}"
        return f"{_WORDS[self.classifier]} on {what}{dp}"


def paper_verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Test every claim on every data set in both settings; sorted by claim."""
    rows = succeeded(table)
    if rows.empty:
        return []
    epsilons = sorted(set(rows["privacy"]) - {"none"}, key=float)
    found: list[Verdict] = []
    for dataset, subset in rows.groupby("dataset", sort=False):
        for setting, scope, hospitals in _SETTINGS:
            for claim, *sides in _claims(str(dataset), setting, scope, hospitals, epsilons):
                better, worse = sides
                found.append(claim.test(better.of(subset), worse.of(subset), (str(better), str(worse))))
        found.append(_cosine_ranks_leakage(subset, str(dataset)))
    return sorted(found, key=lambda one: one.claim)


def _claims(
    dataset: str, setting: str, scope: str, hospitals: str, epsilons: Sequence[str]
) -> Iterable[tuple[Claim, _Choice, _Choice]]:
    """Each claim with the two configurations whose accuracies it subtracts."""

    def trained(classifier: str, autoencoder: str, privacy: str = "none") -> _Choice:
        own_scope = "none" if privacy == "none" else scope
        return _Choice(classifier, "trained", autoencoder, privacy, own_scope, hospitals)

    def claim(name: str, statement: str, threshold: float, *, at_least: bool = True) -> Claim:
        return Claim(name, statement, dataset, setting, threshold, at_least)

    lr, resnet = trained("lr", "fc"), trained("resnet18", "conv")
    yield claim("1a", "a simple autoencoder raises LR", 0.0), lr, _Choice("lr", "pixels")
    yield (
        claim("2a", f"conv costs ResNet18 less than {LITTLE}", -LITTLE),
        resnet,
        _Choice("resnet18", "pixels"),
    )
    for epsilon in epsilons:
        private_lr, private_resnet = trained("lr", "fc", epsilon), trained("resnet18", "conv", epsilon)
        yield claim("1b", f"DP then costs LR more than {A_LOT}", A_LOT), lr, private_lr
        yield claim("2b", f"DP costs it less than {LITTLE}", LITTLE, at_least=False), resnet, private_resnet
        yield claim("3a", "under DP conv with ResNet18 is the choice", 0.0), private_resnet, private_lr


def _cosine_ranks_leakage(rows: pd.DataFrame, dataset: str) -> Verdict:
    """Test whether the paper's leakage metric ranks configurations as the attacker's success does."""
    trained = rows[rows["encoding"] == "trained"].drop_duplicates("cell", keep="last")
    measured = pd.DataFrame(
        {
            "configuration": trained["cell"].str.rpartition("/")[0],
            "cosine": numbers(trained, "cosine").abs(),
            "ssim": numbers(trained, "inversion_ssim"),
        }
    ).dropna()
    points = measured.groupby("configuration", sort=False).mean()
    found = rank_correlation(points["cosine"].to_numpy(), points["ssim"].to_numpy())
    verdict = decide(found.low, found.high, 0.0, at_least=True)
    text = f"rank correlation of |cosine| and inversion SSIM, {len(points)} configurations"
    where = ("3b", "the cosine tells which encoding leaks", dataset, "all trained encoders")
    return Verdict(*where, text, verdict, found.value, found.low, found.high, found.n, 0.0)
