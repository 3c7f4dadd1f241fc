"""Intervals that hold what they should, as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from fl_ppae.leakage.intervals import bootstrap_mean, jackknife, wilson


def test_bootstrap_covers_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    draws = [bootstrap_mean(rng.exponential(1, 100)) for _ in range(200)]
    assert 0.88 <= np.mean([each.low <= 1 <= each.high for each in draws]) <= 0.99
    assert all(each.low <= each.value <= each.high and each.n == 100 for each in draws)


def test_jackknife_of_a_mean_is_the_normal_interval():
    values = np.random.default_rng(1).normal(3, 2, 4000)
    estimate = jackknife(lambda kept: float(values[kept].mean()), len(values))
    assert estimate.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(4000)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.4)  # 20 blocks know it to a sixth
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


@pytest.mark.parametrize(("hits", "n"), [(0, 300), (300, 300), (1, 10), (47, 100)])
def test_wilson_is_scipys(hits, n):
    estimate = wilson(hits, n)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.high > estimate.low


def test_nothing_has_no_interval():
    with pytest.raises(ValueError):
        bootstrap_mean(np.array([]))
    with pytest.raises(ValueError):
        wilson(0, 0)
    with pytest.raises(ValueError):
        wilson(3, 2)
    with pytest.raises(ValueError, match="40"):
        jackknife(lambda kept: 0.0, 39)
