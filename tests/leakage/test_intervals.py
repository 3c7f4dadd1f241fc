"""Intervals that hold what they should, as often as they should."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm, spearmanr

from fl_ppae.leakage.intervals import jackknife, paired_difference, rank_correlation, share, t_mean

# Draws (cases, n) of a distribution with mean 0, and how often t must cover it with 3 to 8 values.
DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.935),
    "skewed": (lambda rng, shape: rng.gamma(4, size=shape) - 4, 0.915),
    "exponential": (lambda rng, shape: rng.exponential(size=shape) - 1, 0.86),
}


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    low, high = np.percentile(
        values[rng.integers(0, len(values), (400, len(values)))].mean(1), (2.5, 97.5)
    ).tolist()
    return low, high


def covers(intervals: list[tuple[float, float]], truth: float = 0.0) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.parametrize("n", range(3, 9))
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_mean_of_few_values_is_covered_where_a_bootstrap_fails(n: int, distribution: str):
    draw, least = DISTRIBUTIONS[distribution]
    cases = draw(np.random.default_rng(n), (1500, n))
    found = [(each.low, each.high) for each in map(t_mean, cases)]
    assert covers(found) >= least
    control = covers([bootstrap(case) for case in cases[:300]])
    assert control < min(0.91, covers(found[:300]) - 0.02)


def test_the_interval_of_three_values_matches_a_t_table():
    # 4.303 for 2 degrees of freedom; the standard error of 1, 2, 3 is 1 / sqrt(3).
    found = t_mean([1.0, 2.0, 3.0])
    assert (found.value, found.high - 2) == (2.0, pytest.approx(4.3027 / 3**0.5, abs=1e-3))


@pytest.mark.parametrize("among", [1, 5])
def test_intervals_that_a_reader_may_choose_from_hold_together(among: int):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(500):
        worst = [t_mean(case, among) for case in rng.normal(size=(5, 6))]
        held.append(all(each.low <= 0 <= each.high for each in worst))
    if among == 5:
        assert 0.93 <= np.mean(held) <= 0.99
    else:
        assert np.mean(held) < 0.85  # the control: one in five misses


@pytest.mark.parametrize("n", [1, 10, 47, 300])
def test_every_true_share_is_covered(n: int):
    found = [share(hits, n) for hits in range(n + 1)]
    low, high = np.array([each.low for each in found]), np.array([each.high for each in found])
    wilson = [binomtest(hits, n).proportion_ci(method="wilson") for hits in range(n + 1)]
    of_wilson = np.array([[each.low, each.high] for each in wilson]).T
    least = {}
    for name, ends in {"exact": (low, high), "wilson": of_wilson}.items():
        chances = [
            binom.pmf(np.flatnonzero((ends[0] <= p) & (p <= ends[1])), n, p).sum()
            for p in np.linspace(0.002, 0.998, 499)
        ]
        least[name] = min(chances)
    assert least["exact"] >= 0.95 - 1e-9
    assert least["wilson"] < 0.95  # the control


@pytest.mark.parametrize(("hits", "n"), [(0, 300), (300, 300), (1, 10), (47, 100)])
def test_a_share_is_scipys(hits: int, n: int):
    found, expected = share(hits, n), binomtest(hits, n).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low <= found.value <= found.high
    assert found.high > found.low
    assert share(hits, n, among=4).low <= found.low < found.high <= share(hits, n, among=4).high


def test_a_part_of_a_hit_lies_between_whole_ones():
    less, part, more = (share(hits, 20).low for hits in (3, 3.5, 4))
    assert less < part < more


def test_seeds_are_paired():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 10, 4)
    difference = paired_difference(common + 1 + 0.01 * rng.normal(size=4), common)
    assert 0.9 < difference.low < 1 < difference.high < 1.1
    assert t_mean(common + 1).high - t_mean(common).low > 10  # the control: apart they show nothing


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize(("of_seed", "of_image"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.05, 1.0)])
def test_a_difference_over_seeds_and_images_is_covered(seeds: int, of_seed: float, of_image: float):
    rng = np.random.default_rng(1)
    both, seeds_alone = [], []
    for _ in range(300):
        effects = of_seed * rng.normal(size=(seeds, 1)) + of_image * rng.normal(size=(1, 150))
        table = effects + 0.5 * rng.normal(size=(seeds, 150))
        found, control = paired_difference(table, np.zeros_like(table)), t_mean(table.mean(1))
        both.append((found.low, found.high))
        seeds_alone.append((control.low, control.high))
    assert covers(both) >= 0.925
    if of_image:
        assert covers(seeds_alone) < 0.925  # the control: it forgets that images were chosen


def test_unpaired_tables_are_refused():
    with pytest.raises(ValueError, match="against"):
        paired_difference(np.zeros((3, 5)), np.zeros((3, 4)))


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_a_rank_correlation_is_covered(n: int, rho: float):
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's, of a bivariate normal distribution
    rng = np.random.default_rng(0)
    left, noise = rng.normal(size=(2, 400, n))
    pairs = zip(left, rho * left + math.sqrt(1 - rho**2) * noise, strict=True)
    found = [rank_correlation(*pair) for pair in pairs]
    assert covers([(each.low, each.high) for each in found], truth) >= 0.92
    assert found[0].value == pytest.approx(
        spearmanr(left[0], rho * left[0] + math.sqrt(1 - rho**2) * noise[0]).statistic
    )


def test_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(1).normal(3, 2, 4000)
    estimate = jackknife(lambda kept: float(values[kept].mean()), len(values))
    assert estimate.value == pytest.approx(values.mean())
    half = 2.09 * values.std() / np.sqrt(4000)  # t with 19 degrees of freedom
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.4)  # 20 blocks know it to a sixth
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


def test_a_jackknife_covers():
    rng = np.random.default_rng(2)
    found = [
        jackknife(lambda kept, case=case: float(case[kept].mean()), 60) for case in rng.normal(size=(300, 60))
    ]
    assert 0.92 <= covers([(each.low, each.high) for each in found]) <= 0.985
    normal = [each.value + norm.ppf(0.975) / 2.093 * (each.high - each.value) for each in found]
    assert all(high < each.high for high, each in zip(normal, found, strict=True))


def test_what_has_no_interval_says_so():
    assert math.isnan(t_mean([0.5]).low) and t_mean([0.5]).value == 0.5
    assert math.isnan(paired_difference(np.ones((1, 9)), np.zeros((1, 9))).high)
    assert math.isnan(rank_correlation(range(7), range(7)).low)
    assert math.isnan(rank_correlation(np.arange(9), np.ones(9)).value)
    for nothing in (lambda: t_mean([]), lambda: share(0, 0), lambda: share(3, 2)):
        with pytest.raises(ValueError):
            nothing()
    with pytest.raises(ValueError, match="40"):
        jackknife(lambda kept: 0.0, 39)
