"""Membership inference: measures that agree with their definitions, and shadows that take difficulty out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fl_ppae.leakage.membership import (
    balanced_halves,
    membership_auc,
    relative_likelihood,
    roc,
    true_positive_rate,
)


@pytest.mark.parametrize("members", [1, 7, 100])
@pytest.mark.parametrize("others", [1, 30])
@pytest.mark.parametrize("levels", [2, 5, 10**6])  # few levels: many ties
def test_the_area_is_scikit_learns_ties_and_all(members: int, others: int, levels: int):
    rng = np.random.default_rng(members + others)
    inside, outside = rng.integers(0, levels, members) + 1.0, rng.integers(0, levels, others)
    truth = np.repeat([1, 0], [members, others])
    expected = roc_auc_score(truth, np.concatenate([inside, outside]))
    found = membership_auc(inside, outside)
    assert found.value == pytest.approx(expected)
    false, true = roc(inside, outside)
    assert np.trapezoid(true, false) == pytest.approx(expected)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(false) >= 0) and np.all(np.diff(true) >= 0)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
@pytest.mark.parametrize("levels", [3, 10**6])
def test_no_threshold_with_so_few_false_positives_hits_more(rate: float, levels: int):
    rng = np.random.default_rng(3)
    inside, outside = rng.integers(0, levels, 500) + levels / 4, rng.integers(0, levels, 1000)
    thresholds = np.concatenate([np.unique(np.concatenate([inside, outside])), [-1]])
    allowed = [cut for cut in thresholds if np.sum(outside > cut) <= rate * len(outside)]
    found = true_positive_rate(inside, outside, rate)
    assert found.value == max(np.mean(inside > cut) for cut in allowed)
    assert found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="can't be measured on"):
        true_positive_rate(inside, outside[: int(1 / rate) - 1], rate)


def test_guesses_are_at_chance_within_their_intervals():
    held = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        inside, outside = rng.normal(size=2000), rng.normal(size=2000)
        area, hits = membership_auc(inside, outside), true_positive_rate(inside, outside, 0.01)
        held += (area.low < 0.5 < area.high) + (hits.low < 0.01 < hits.high)
        assert area.high - area.low < 0.05
    assert held >= 17  # of 20, 95 % each


@pytest.mark.parametrize("records", [2, 31, 100])
@pytest.mark.parametrize("models", [2, 4, 8])
def test_every_record_is_in_half_of_the_shadows(records: int, models: int):
    halves = balanced_halves(records, models, seed=1)
    assert halves.shape == (models, records)
    assert (halves.sum(0) == models // 2).all()
    assert (abs(halves.sum(1) - records / 2) <= 0.5).all()
    with pytest.raises(ValueError, match="pairs"):
        balanced_halves(records, models - 1, seed=1)


def world(seed: int, shadows: int = 4, edge: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses that are mostly a record's difficulty, and a little lower where a model trained on it."""
    rng = np.random.default_rng(seed)
    member = np.arange(2000) < 1000
    difficulty = rng.exponential(2, 2000)
    inside = np.array([member, *balanced_halves(2000, shadows, seed)])
    losses = difficulty - edge * inside + 0.2 * rng.normal(size=inside.shape)
    return losses[0], losses[1:], member


def test_four_shadows_take_the_difficulty_out():
    losses, shadows, member = world(0)
    ratio = relative_likelihood(losses, shadows)
    assert membership_auc(-losses[member], -losses[~member]).value < 0.65
    assert membership_auc(ratio[member], ratio[~member]).value > 0.9
    assert true_positive_rate(ratio[member], ratio[~member], 0.01).value > 0.25
    losses, shadows, member = world(0, edge=0.0)
    ratio = relative_likelihood(losses, shadows)
    found = membership_auc(ratio[member], ratio[~member])
    assert found.low < 0.5 < found.high


def test_the_ratio_has_the_roc_of_rmias_pairwise_count():
    losses, shadows, member = world(1)
    odds = np.exp(-losses) / np.exp(-shadows).mean(0)
    references = odds[::7]
    dominated = (odds[:, None] >= references[None]).mean(1)
    ratio = relative_likelihood(losses, shadows)
    order = np.argsort(ratio)
    assert np.all(np.diff(dominated[order]) >= 0)
    np.testing.assert_allclose(np.exp(ratio), odds)
    pairwise, direct = (
        membership_auc(scores[member], scores[~member]).value for scores in (dominated, ratio)
    )
    assert pairwise == pytest.approx(direct, abs=0.005)
