"""Membership inference: how well scores separate records that were trained on from others.

Scores are higher for records that look like members. An attack is judged by its true-positive rate at a
low false-positive rate, not by an average over all records (Carlini et al. 2022, arXiv:2112.03570).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_curve

from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.intervals import Estimate, wilson

Array = NDArray[Any]

_RESAMPLES = 300


def membership_auc(members: Array, others: Array) -> Estimate:
    """The probability that a member (M,) scores above a non-member (N,), ties counted half.

    The interval is the percentile bootstrap's over members and non-members. Guessing gives 0.5.

    Raises:
        ValueError: there are no members, or no others, or a score is not finite.
    """
    check_finite(members=members, others=others)
    low, high = np.percentile(_resampled(_auc, members, others), (2.5, 97.5))
    return Estimate(_auc(members, others), float(low), float(high), len(members) + len(others))


def true_positive_rate(members: Array, others: Array, false_positives: float) -> Estimate:
    """The share of members (M,) that score above all but `false_positives` of the non-members (N,).

    The interval is the wider of two: the percentile bootstrap's over members and non-members, which accounts
    for a threshold chosen on few non-members, and Wilson's, which holds if nothing was hit. Guessing gives
    `false_positives`.

    Raises:
        ValueError: no members, no others, too few others for one false positive, or a score is not finite.
    """
    check_finite(members=members, others=others)
    if false_positives * len(others) < 1:
        raise ValueError(f"a rate of {false_positives:g} can't be measured on {len(others)} non-members")

    def rate(inside: Array, outside: Array) -> float:
        return float(np.mean(inside > _threshold(outside, false_positives)))

    value = rate(members, others)
    low, high = np.percentile(_resampled(rate, members, others), (2.5, 97.5))
    share = wilson(value * len(members), len(members))
    return Estimate(value, float(min(low, share.low)), float(max(high, share.high)), share.n + len(others))


def roc(members: Array, others: Array) -> tuple[Array, Array]:
    """False- and true-positive rates at every threshold, each (K,), rising from 0 to 1.

    Raises:
        ValueError: a score is not finite.
    """
    check_finite(members=members, others=others)
    truth = np.repeat([1, 0], [len(members), len(others)])
    false, true, _ = roc_curve(truth, np.concatenate([members, others]), drop_intermediate=False)
    return false, true


def balanced_halves(records: int, models: int, seed: int) -> Array:
    """Which records each shadow model trains on: (models, records) bool, models even.

    Models come in pairs, the second trained on what the first was not, so every record is in exactly half.

    Raises:
        ValueError: `models` is odd or less than 2.
    """
    if models < 2 or models % 2:
        raise ValueError(f"shadow models come in pairs, not {models}")
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(models // 2):
        inside = np.zeros(records, bool)
        inside[rng.permutation(records)[: records // 2]] = True
        rows += [inside, ~inside]
    return np.array(rows)


def relative_likelihood(losses: Array, shadow_losses: Array, scale: float = 1.0) -> Array:
    """RMIA's log ratio of Pr(x | model) to Pr(x), (N,) (Zarifzadeh et al. 2024, arXiv:2312.03262).

    Pr(x | model) = exp(-loss / scale): with cross-entropy and scale 1 the probability of the true class.
    Pr(x) is its mean over shadow models (S, N) of which every record is in exactly half. RMIA then counts
    how many reference records x dominates; with one set of them that count increases with this ratio,
    so both have the same ROC.

    Raises:
        ValueError: a loss is not finite.
    """
    check_finite(losses=losses, shadow_losses=shadow_losses)
    own = -np.asarray(losses, np.float64) / scale
    shadows = -np.asarray(shadow_losses, np.float64) / scale
    ratio: Array = own - (logsumexp(shadows, axis=0) - np.log(len(shadows)))
    return ratio


def _auc(members: Array, others: Array) -> float:
    if not len(members) or not len(others):
        raise ValueError(f"{len(members)} members, {len(others)} others")
    # The same number as scikit-learn's roc_auc_score, in a third of the time: 300 resamples are drawn.
    pairs_won = mannwhitneyu(members, others, method="asymptotic").statistic
    return float(pairs_won / (len(members) * len(others)))


def _threshold(others: Array, false_positives: float) -> float:
    """The lowest score above which at most that share of the others lies."""
    allowed = int(false_positives * len(others))
    return float(np.partition(others, len(others) - allowed - 1)[len(others) - allowed - 1])


def _resampled(statistic: Any, members: Array, others: Array) -> list[float]:
    rng = np.random.default_rng(0)

    def again(scores: Array) -> Array:
        drawn: Array = scores[rng.integers(0, len(scores), len(scores))]
        return drawn

    return [statistic(again(members), again(others)) for _ in range(_RESAMPLES)]
