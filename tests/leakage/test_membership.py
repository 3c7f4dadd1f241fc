"""Membership inference: measures that agree with their definitions, and shadows that take difficulty out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fl_ppae.leakage.intervals import share
from fl_ppae.leakage.membership import (
    balanced_halves,
    likelihood_ratio,
    membership_auc,
    relative_likelihood,
    roc,
    true_positive_rate,
    with_shadows,
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
    without_ties = max(np.mean(inside > cut) for cut in allowed)
    if levels > 1000:
        assert found.value == without_ties
    assert found.value >= without_ties
    assert found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="can't be measured on"):
        true_positive_rate(inside, outside[: int(1 / rate) - 1], rate)


@pytest.mark.parametrize(("size", "shift"), [(8, 0.0), (8, 2.0), (30, 3.0), (300, 0.0), (300, 1.0)])
def test_the_area_is_covered_where_a_bootstrap_fails(size: int, shift: float):
    rng = np.random.default_rng(size)
    truth, held, control = norm.cdf(shift / 2**0.5), [], []
    for case in range(200):
        inside, outside = rng.normal(shift, 1, size), rng.normal(size=size)
        found = membership_auc(inside, outside)
        held.append(found.low <= truth <= found.high)
        if case < 60 and size < 100:
            rows, columns = rng.integers(0, size, (2, 60, size))
            drawn = (inside[rows][:, :, None] > outside[columns][:, None]).mean((1, 2))
            low, high = np.percentile(drawn, (2.5, 97.5))
            control.append(low <= truth <= high)
    assert np.mean(held) >= 0.92
    if size < 100 and shift > 0:
        assert np.mean(control) < 0.925
    assert membership_auc(np.ones(20), np.zeros(20)).low < 0.95  # 1.0, of few records


@pytest.mark.parametrize(("size", "rate"), [(100, 0.05), (1000, 0.01), (1000, 0.1)])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_the_rate_among_all_non_members_is_covered(size: int, rate: float, shift: float):
    rng = np.random.default_rng(size)
    truth = norm.sf(norm.isf(rate) - shift)
    held, threshold_taken_as_known = [], []
    for _ in range(200):
        inside, outside = rng.normal(shift, 1, size), rng.normal(size=size)
        found = true_positive_rate(inside, outside, rate)
        held.append(found.low <= truth <= found.high)
        alone = share(round(found.value * size), size)
        threshold_taken_as_known.append(alone.low <= truth <= alone.high)
    assert np.mean(held) >= 0.95
    assert np.mean(threshold_taken_as_known) < 0.95  # the control


@pytest.mark.parametrize("size", [100, 1000])
def test_one_score_for_all_is_a_guess(size: int):
    found = true_positive_rate(np.ones(size), np.ones(size), 0.01)
    assert found.value == pytest.approx(0.01)
    assert found.low <= 0.01 <= found.high < 0.15
    assert membership_auc(np.ones(size), np.ones(size)).value == 0.5


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


@pytest.mark.parametrize("shadows", [4, 16, 64])
def test_lira_finds_members_and_nobody_where_there_is_nothing_to_find(shadows: int):
    for edge, found in ((0.5, True), (0.0, False)):
        losses, shadow_losses, member = world(0, shadows, edge)
        inside = balanced_halves(2000, shadows, 0)
        for nats in (True, False):
            ratio = likelihood_ratio(losses + 2, shadow_losses + 2, inside, nats=nats)
            area = membership_auc(ratio[member], ratio[~member])
            assert (area.low > 0.75) if found else (area.low < 0.5 < area.high)


def test_lira_is_the_ratio_of_two_normal_densities():
    rng = np.random.default_rng(0)
    losses, shadow_losses = rng.uniform(0.1, 3, 5), rng.uniform(0.1, 3, (64, 5))
    inside = balanced_halves(5, 64, 1)
    found = likelihood_ratio(losses, shadow_losses, inside, nats=True)
    for record in range(5):
        logits = [np.log(np.exp(-each) / (1 - np.exp(-each))) for each in (losses, shadow_losses[:, record])]
        parts = [logits[1][inside[:, record]], logits[1][~inside[:, record]]]
        one, other = (norm.logpdf(logits[0][record], part.mean(), part.std(ddof=1)) for part in parts)
        assert found[record] == pytest.approx(one - other)


def test_attackers_with_shadows_are_named_by_their_number():
    losses, shadow_losses, _ = world(0, 2)
    few = with_shadows(losses + 2, shadow_losses + 2, balanced_halves(2000, 2, 0), nats=True)
    assert list(few) == ["RMIA, 2 shadows"]
    losses, shadow_losses, _ = world(0, 4)
    more = with_shadows(losses + 2, shadow_losses + 2, balanced_halves(2000, 4, 0), nats=False)
    assert list(more) == ["RMIA, 4 shadows", "LiRA, 4 shadows"]


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
