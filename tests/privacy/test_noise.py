"""Noise: its distribution far into the tails, its grid, and the attack on float arithmetic that it stops."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import chisquare, kstest, norm

from fl_ppae.privacy import noise as noise_module
from fl_ppae.privacy.noise import CELL_ERROR, SAMPLER_EPSILON, add_noise, grid_step, standard_normal
from fl_ppae.privacy.randomness import Stream, seeded_stream

STDS = [1e-9, 0.7e-3, 1.0, 50.0, 1e6]


class Words(Stream):
    """A stream of given words."""

    def __init__(self, *words: list[int]) -> None:
        self._given = [np.array(each, np.uint64) for each in words]

    def words(self, count: int) -> np.ndarray:
        given = self._given.pop(0)
        assert len(given) == count
        return given


def test_numbers_are_standard_normal() -> None:
    drawn = standard_normal(400_000, seeded_stream(1))
    assert kstest(drawn, norm.cdf).pvalue > 1e-3
    for far in (3.0, 4.0):
        for count in ((drawn > far).sum(), (drawn < -far).sum()):
            expected = len(drawn) * norm.sf(far)
            assert abs(count - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("exponent", [*range(1, 12), 30, 62, 63, 64, 90, 108])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_word_becomes_the_quantile_of_its_tail_probability(exponent: int, sign: int) -> None:
    """Against mpmath, from one half to the probability of 12 standard deviations."""
    whole = int(1.37 * 2 ** (127 + 63 - exponent))  # 63 bits of a word, then two more words
    first, rest = divmod(whole, 2**128)
    given = [[2 * first + sign]]
    if first < 2**53:
        given.append(list(divmod(rest, 2**64)))
    (found,) = standard_normal(1, Words(*given))
    tail = mpmath.mpf(whole) / 2**192
    with mpmath.workdps(60):
        expected = -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * tail)
        assert abs(abs(mpmath.mpf(float(found))) + expected) < 4e-15
    assert (found > 0) == bool(sign)


def test_the_error_of_a_cell_is_below_the_stated_one() -> None:
    """What moves a cell's borders, in cells: the quantile's own error and four roundings."""
    rng = np.random.default_rng(0)
    tails = np.concatenate([2.0 ** -rng.uniform(1, 109, 1500), rng.random(500) / 2])
    errors = []
    with mpmath.workdps(60):
        for tail in tails:
            found = mpmath.mpf(float(ndtri(tail)))
            off = mpmath.erfc(-found / mpmath.sqrt(2)) / 2 - mpmath.mpf(float(tail))
            errors.append(float(abs(off / mpmath.npdf(found))))
    cells = 2.0 ** (noise_module.GRID_BITS + 1)
    roundings = 4 * 2.0**-53 * 12 * cells
    moved = max(errors) * cells + roundings
    density_ratio = math.exp(12 / (cells / 2))
    assert 2 * moved * density_ratio < CELL_ERROR


def test_all_cells_together_cost_less_than_what_the_accountant_adds() -> None:
    numbers, failure = 1e10, 1e-20
    deviation = CELL_ERROR * math.sqrt(2 * numbers * math.log(1 / failure)) + numbers * CELL_ERROR**2
    assert 2 * deviation < SAMPLER_EPSILON


@pytest.mark.parametrize("std", STDS)
def test_noise_has_the_standard_deviation_and_the_shapes_asked_for(std: float) -> None:
    shapes = [(100, 200), (300,), (10, 3, 5, 5), ()]
    sums = [torch.full(shape, 3 * std, dtype=torch.float64) for shape in shapes]
    released = add_noise(sums, std, seeded_stream(1))
    assert [tuple(part.shape) for part in released] == shapes
    assert {part.dtype for part in released} == {torch.float64}
    drawn = torch.cat([(part - 3 * std).flatten() for part in released]).numpy() / std
    assert kstest(drawn, norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("std", STDS)
def test_every_release_is_on_a_public_grid(std: float) -> None:
    rng = np.random.default_rng(4)
    for scale in (0.0, 1e-12, 1.0, 1e6):
        total = torch.from_numpy(scale * std * rng.normal(size=1000))
        (released,) = add_noise([total], std, seeded_stream(2))
        cells = released / grid_step(std)
        assert torch.equal(cells, cells.round())
    assert std / 128 <= grid_step(std) <= std / 64


def test_the_cells_of_a_sum_between_two_grid_points_are_as_likely_as_rounding_says() -> None:
    std = 1.0
    step = grid_step(std)
    total = 0.3 * step
    (released,) = add_noise([torch.full((400_000,), total, dtype=torch.float64)], std, seeded_stream(3))
    cells = np.round(released.numpy() / step).astype(int)
    edges = np.arange(-160, 161, 20)
    counts = np.histogram(cells, [-np.inf, *(edges - 0.5), np.inf])[0]
    borders = norm.cdf([-np.inf, *((edges - 0.5) * step - total), np.inf])
    assert chisquare(counts, len(cells) * np.diff(borders)).pvalue > 1e-3


def test_sums_that_are_a_grid_apart_give_shifted_releases_of_the_same_noise() -> None:
    step = grid_step(1.0)
    total = torch.from_numpy(np.random.default_rng(0).normal(size=1000))
    one, other = (add_noise([part], 1.0, seeded_stream(1))[0] for part in (total, total + 5 * step))
    assert torch.equal(other - one, torch.full((1000,), 5 * step, dtype=torch.float64))


def naive(total: float, count: int) -> np.ndarray:
    drawn = seeded_stream(7).words(count) / 2.0**64 * 6 - 3  # any noise of float64 numbers will do
    return total + drawn


def ours(total: float, count: int) -> np.ndarray:
    (released,) = add_noise([torch.full((count,), total, dtype=torch.float64)], 1.0, seeded_stream(7))
    return released.numpy()


@pytest.mark.parametrize(("release", "told"), [(naive, True), (ours, False)])
def test_no_release_can_come_from_one_of_two_neighbours_alone(
    release: Callable[[float, int], np.ndarray], told: bool
) -> None:
    """Mironov's attack: which float64 numbers `total + noise` can reach depends on the total."""
    count = 200_000
    one, other = np.unique(release(0.0, count)), np.unique(release(0.7, count))
    shared = np.isin(one, other).mean()
    assert (shared < 0.01) == told
    assert (shared > 0.85) != told


def test_noise_differs_between_tensors_and_calls() -> None:
    stream = seeded_stream(1)
    sums = [torch.zeros(5000, dtype=torch.float64)] * 2
    draws = [part.numpy() for _ in range(2) for part in add_noise(sums, 1.0, stream)]
    correlations = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlations).max() < 0.06
