"""What the membership attacks share: candidates, rows and the figure.

Members are train records of hospitals. Non-members are records of the official test split, which no model
saw, with the hospital's acquisition shift and the members' class mix; otherwise guessing the class would pass
for membership.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.allowed import Allowed
from fl_ppae.attacks.attack import Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.data.records import HospitalRecords, Positions
from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.intervals import Estimate
from fl_ppae.leakage.membership import membership_auc, roc, true_positive_rate
from fl_ppae.plotting import plot_roc

SHIFTED = ", members and non-members come from different centres: not every difference is membership"
_FALSE_POSITIVES = (0.01, 0.001)  # 0.001 only with at least 1,000 non-members
_SEED = 0

Statistic = Callable[..., Estimate]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Records of which some were trained on; positions count the members first, then the others."""

    members: HospitalRecords
    others: HospitalRecords

    def __len__(self) -> int:
        return len(self.members) + len(self.others)

    def images(self, positions: Positions = slice(None)) -> Tensor:
        """(N, C, H, W) float32 in [0, 1], members first whatever the order of `positions`."""
        members, others = self._parts(positions)
        return torch.cat([self.members.images(members), self.others.images(others)])

    def labels(self, positions: Positions = slice(None)) -> Tensor:
        """(N,) int64, in the order of `images`."""
        members, others = self._parts(positions)
        return torch.cat([self.members.labels(members), self.others.labels(others)])

    def split(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (N,) of all candidates as those of members and of others."""
        return scores[: len(self.members)], scores[len(self.members) :]

    def _parts(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        rows, size = np.arange(len(self))[positions], len(self.members)
        return rows[rows < size], rows[rows >= size] - size


@dataclass(frozen=True, eq=False)
class Scores:
    """An attack's scores of the candidates, higher for members; `undefended`: the same without DP."""

    members: np.ndarray
    others: np.ndarray
    undefended: tuple[np.ndarray, np.ndarray] | None = None


def candidates_of(audited: AuditedRun, hospital: str) -> Candidates:
    """A hospital's train records, and at most as many test records of the same class mix."""
    assert audited.deal is not None
    members, test = audited.deal.train[hospital], audited.dataset.test
    rows = match_class_mix(members.labels().numpy(), np.asarray(test.labels), len(members))
    return Candidates(members, HospitalRecords(test, rows, members.shift))


def match_class_mix(wanted: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """Sorted positions of up to `most` of `labels` (N,), drawn with the class mix of `wanted`.

    Classes that `labels` lacks are left out.

    Raises:
        Unmeasurable: `labels` has none of the classes.
    """
    rng = np.random.default_rng(_SEED)
    present = np.intersect1d(wanted, labels)
    if not len(present):
        raise Unmeasurable("no record that nothing was trained on has a class of those that were trained on")
    shares = {label: float(np.mean(wanted == label)) for label in present}
    total = min([most, *(np.sum(labels == label) / share for label, share in shares.items())])
    rows = [
        rng.permutation(np.flatnonzero(labels == label))[: max(1, round(total * share))]
        for label, share in shares.items()
    ]
    return np.sort(np.concatenate(rows))


def threat_of(audited: AuditedRun, threat_model: ThreatModel) -> str:
    """The threat model as printed, with a warning if the test split comes from elsewhere."""
    return threat_model.name + (SHIFTED if audited.dataset.spec.tested_elsewhere else "")


def membership_findings(
    audited: AuditedRun,
    attack: str,
    threat: str,
    title: str,
    attackers: Mapping[str, Scores],
    details: Mapping[str, Scores],
    allowed: Allowed | None,
) -> Findings:
    """AUC and true-positive rates of each attacker by name, beside what a guarantee allows.

    The figure shows the ROC of `attackers` alone.
    """

    def draw(path: Path) -> None:
        edge = None if allowed is None else allowed.edge()
        plot_roc(_curves(attackers), path, title, audited.stored.data_label, edge)

    rows, detail_rows = (
        tuple(
            row
            for name, scores in found.items()
            for row in _rows(attack, threat, name, scores, len(found), allowed)
        )
        for found in (attackers, details)
    )
    return Findings(rows, detail_rows, {f"{attack}.png": draw})


def _rows(
    attack: str, threat: str, variant: str, scores: Scores, among: int, allowed: Allowed | None
) -> list[Result]:
    """AUC and true-positive rates of one attacker of `among`, from which a reader may pick the best."""
    members, others, undefended = scores.members, scores.others, scores.undefended

    def row(metric: str, chance: float, most: float | None, statistic: Statistic) -> Result:
        without = None if undefended is None else statistic(*undefended, among=among).value
        return result(
            attack,
            threat,
            metric,
            statistic(members, others, among=among),
            chance=chance,
            undefended=without,
            allowed=most,
            variant=variant,
        )

    rows = [row("auc", 0.5, allowed.area() if allowed else None, membership_auc)]
    for rate in _FALSE_POSITIVES:
        if rate * len(others) >= 1:
            most = allowed.true_positive_rate(rate) if allowed else None
            statistic = partial(true_positive_rate, false_positives=rate)
            rows.append(row(f"tpr at {100 * rate:g} % fpr", rate, most, statistic))
    return rows


def _curves(attackers: Mapping[str, Scores]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    curves = {}
    for name, scores in attackers.items():
        curves[name] = roc(scores.members, scores.others)
        if scores.undefended is not None and scores.undefended[0] is not scores.members:
            curves[f"{name}, without defence"] = roc(*scores.undefended)
    return curves
