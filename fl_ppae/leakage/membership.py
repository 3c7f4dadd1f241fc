"""Membership inference: how well scores separate records that were trained on from others.

Scores are higher for records that look like members. An attack is judged by its true-positive rate at a
low false-positive rate, not by an average over all records (Carlini et al. 2022, arXiv:2112.03570).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import binom, norm, rankdata
from sklearn.metrics import roc_curve

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.intervals import Estimate, share, tail

Array = NDArray[Any]

_FEWEST_OF_LIRA, _OWN_VARIANCE = 4, 64  # shadow models
_LEAST_VARIANCE, _LEAST_LOSS, _MOST_NATS = 1e-6, 1e-300, 500.0


def membership_auc(members: Array, others: Array, among: int = 1) -> Estimate:
    """The probability that a member (M,) scores above a non-member (N,), ties counted half.

    The interval joins two: DeLong's (1988, Biometrics 44), right for any distributions of many scores, and
    Newcombe's (2006, Statistics in Medicine 25, method 5), which holds for few and at 0 and 1. `among` as in
    `intervals`. Guessing gives 0.5.

    Raises:
        Unmeasurable: there are no members, or no others, or a score is not finite.
    """
    if not len(members) or not len(others):
        raise Unmeasurable(f"{len(members)} members, {len(others)} others")
    check_finite(members=members, others=others)
    ranks = rankdata(np.concatenate([members, others]))
    inside, outside = ranks[: len(members)], ranks[len(members) :]
    won = (inside - rankdata(members)) / len(others)  # the share of others that each member beats
    lost = 1 - (outside - rankdata(others)) / len(members)
    value = float(won.mean())
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (won, lost) if len(part) > 1)
    half = float(norm.isf(tail(among))) * variance**0.5
    low, high = _newcombe(value, len(members), len(others), float(norm.isf(tail(among))))
    low, high = max(0.0, min(low, value - half)), min(1.0, max(high, value + half))
    return Estimate(value, low, high, len(members) + len(others))


def true_positive_rate(members: Array, others: Array, false_positives: float, among: int = 1) -> Estimate:
    """The largest share of members (M,) found at this rate of false positives among non-members (N,).

    Records with equal scores are told apart by chance, so guessing, or one score for all, gives
    `false_positives`. The interval is for that rate among all non-members, not only these N. It is exact
    whatever the scores' distributions: the threshold lies between two of the non-members' order statistics,
    and the members above each have Clopper and Pearson's interval; each of the four errors has probability
    0.0125 / `among`. From few non-members the threshold can't be known: with 100, the lower end at a rate of
    1 % is 0.

    Raises:
        Unmeasurable: no members, no others, too few others for one false positive, a rate outside (0, 1), or
            a score that is not finite.
    """
    check_finite(members=members, others=others)
    if not 0 < false_positives < 1:
        raise Unmeasurable(f"a rate of {false_positives:g}: must be above 0 and below 1")
    if not len(members):
        raise Unmeasurable(f"{len(members)} members, {len(others)} others")
    if false_positives * len(others) < 1:
        raise Unmeasurable(f"a rate of {false_positives:g} can't be measured on {len(others)} non-members")
    value = float(np.interp(false_positives, *_upper_edge(*roc(members, others))))
    places = _places(np.concatenate([members, others]))
    inside, outside = places[: len(members)], np.sort(places[len(members) :])[::-1]
    # The n-th highest other is above the true threshold if at least n others are, and below it otherwise.
    error = tail(among) / 2
    surely, perhaps = (int(binom.ppf(part, len(others), false_positives)) for part in (error, 1 - error))
    above = np.sum(inside > outside[surely - 1]) if surely else 0
    from_here = np.sum(inside > outside[perhaps]) if perhaps < len(others) else len(members)
    low = share(int(above), len(members), 2 * among).low
    high = share(int(from_here), len(members), 2 * among).high
    return Estimate(value, min(low, value), max(high, value), len(members) + len(others))


def roc(members: Array, others: Array) -> tuple[Array, Array]:
    """False- and true-positive rates at every threshold, each (K,), rising from 0 to 1.

    Raises:
        Unmeasurable: there are no members, or no others, or a score is not finite.
    """
    if not len(members) or not len(others):
        raise Unmeasurable(f"{len(members)} members, {len(others)} others")
    check_finite(members=members, others=others)
    truth = np.repeat([1, 0], [len(members), len(others)])
    false, true, _ = roc_curve(truth, np.concatenate([members, others]), drop_intermediate=False)
    return false, true


def balanced_halves(records: int, models: int, seed: int) -> Array:
    """Which records each shadow model trains on: (models, records) bool, models even.

    Models come in pairs, the second trained on what the first was not, so every record is in exactly half.

    Raises:
        Unmeasurable: `models` is odd or less than 2.
    """
    if models < 2 or models % 2:
        raise Unmeasurable(f"shadow models come in pairs, not {models}")
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

    Losses near 0 keep their order: Pr(x) is computed from what it lacks to 1 where that is little.

    Raises:
        Unmeasurable: a loss is not finite, the scale is not positive, or shadows have other records.
    """
    _check_losses(losses, shadow_losses)
    if not scale > 0:
        raise Unmeasurable(f"a scale of {scale:g}: must be above 0")
    own = -np.asarray(losses, np.float64) / scale
    shadows = -np.asarray(shadow_losses, np.float64) / scale
    with np.errstate(divide="ignore", over="ignore"):
        missing = np.expm1(shadows).mean(0)
        near, far = np.log1p(np.maximum(missing, -1)), logsumexp(shadows, axis=0) - np.log(len(shadows))
    ratio: Array = own - np.where(np.abs(missing) < 0.5, near, far)
    return ratio


def with_shadows(losses: Array, shadow_losses: Array, inside: Array, *, nats: bool) -> dict[str, Array]:
    """Scores (N,) by attacker, from losses (N,) and those of shadow models (S, N) trained on `inside`.

    `nats`: the losses are cross-entropies. RMIA, and from 4 shadows LiRA.
    """
    scale = 1.0 if nats else float(np.mean(shadow_losses))
    scores = {f"RMIA, {len(inside)} shadows": relative_likelihood(losses, shadow_losses, scale)}
    if len(inside) >= _FEWEST_OF_LIRA:
        ratio = likelihood_ratio(losses, shadow_losses, inside, nats=nats)
        scores[f"LiRA, {len(inside)} shadows"] = ratio
    return scores


def likelihood_ratio(losses: Array, shadow_losses: Array, inside: Array, *, nats: bool) -> Array:
    """LiRA's log likelihood ratio (N,) of a record being in or out (Carlini et al. 2022, arXiv:2112.03570).

    The confidence, log(p / (1 - p)) with p = exp(-loss), or -log(loss) of a loss that is no cross-entropy, is
    normal with a mean for each record, in and out; its variance is each record's with 64 shadows, else common
    to all. Every record must be in half of the shadow models, `inside` (S, N) bool, S at least 4.

    Raises:
        Unmeasurable: a loss is not finite, shadows have other records, or a record is not in half of them.
    """
    _check_losses(losses, shadow_losses)
    if len(inside) < _FEWEST_OF_LIRA or np.shape(inside) != np.shape(shadow_losses):
        raise Unmeasurable(
            f"{np.shape(inside)} places of {np.shape(shadow_losses)} losses, of 4 shadows or more"
        )
    if (np.sum(inside, axis=0) * 2 != len(inside)).any():
        raise Unmeasurable("every record must be in half of the shadow models")
    own, shadows = (_confidence(np.asarray(each, np.float64), nats=nats) for each in (losses, shadow_losses))
    parts = []
    for where in (inside, ~inside):
        held = np.where(where, shadows, np.nan)
        mean, variance = np.nanmean(held, axis=0), np.nanvar(held, axis=0, ddof=1)
        each = variance if len(inside) >= _OWN_VARIANCE else np.full(len(own), variance.mean())
        parts.append(norm.logpdf(own, mean, np.sqrt(np.maximum(each, _LEAST_VARIANCE))))
    ratio: Array = parts[0] - parts[1]
    return ratio


def _check_losses(losses: Array, shadow_losses: Array) -> None:
    check_finite(losses=losses, shadow_losses=shadow_losses)
    if np.ndim(shadow_losses) != 2 or np.shape(shadow_losses)[1:] != np.shape(losses):
        raise Unmeasurable(f"losses of {np.shape(losses)} records, of shadows {np.shape(shadow_losses)}")


def _confidence(losses: Array, *, nats: bool) -> Array:
    bounded = np.clip(losses, _LEAST_LOSS, _MOST_NATS if nats else None)
    confidence: Array = -np.log(np.expm1(bounded)) if nats else -np.log(bounded)
    return confidence


def _newcombe(value: float, members: int, others: int, z: float) -> tuple[float, float]:
    """Where the area would have to be for `value` to lie z standard deviations away."""
    pairs = (members + others) / 2 - 1

    def distance(area: float) -> float:
        spread = 1 + pairs * ((1 - area) / (2 - area) + area / (1 + area))
        return (value - area) ** 2 - z**2 * area * (1 - area) * spread / (members * others)

    inside = min(1 - 1e-9, max(1e-9, value))  # at 0 and 1 the distance is 0 at `value` itself
    low = brentq(distance, 0.0, inside) if value > 0 else 0.0
    high = brentq(distance, inside, 1.0) if value < 1 else 1.0
    return float(low), float(high)


def _places(scores: Array) -> Array:
    """The place (N,) of each score in rising order; equal scores in random order."""
    chance = np.random.default_rng(0).permutation(len(scores))
    places: Array = np.argsort(np.lexsort((chance, scores)))
    return places


def _upper_edge(false: Array, true: Array) -> tuple[Array, Array]:
    """Each false-positive rate once, with the largest true-positive rate at it."""
    last = np.append(np.diff(false) > 0, True)
    return false[last], true[last]
