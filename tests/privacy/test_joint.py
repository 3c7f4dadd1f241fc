"""Rounded shares of noise add up to a Gaussian mechanism, within a distance that is bounded and tested."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import mpmath
import numpy as np
import pytest
import torch

from fl_ppae.errors import UserError
from fl_ppae.privacy.joint import check_range, log_rounding_distance
from fl_ppae.privacy.noise import add_noise, grid_step
from fl_ppae.privacy.randomness import seeded_stream

OFFSETS = (0.0, 0.31, -0.47, 0.5, 0.18)  # of the hospitals' sums, in cells
COARSE = list(product((0.5, 1.0, 1.5), (2, 3)))


@pytest.fixture(autouse=True)
def digits() -> Iterator[None]:
    with mpmath.workdps(30):
        yield


def sent(offset: float, sigma: float, cells: int) -> list[mpmath.mpf]:
    """P(Y = k) for k in -cells to cells: one hospital's sum of `offset` cells, noised and rounded."""

    def below(border: float) -> mpmath.mpf:
        return mpmath.ncdf((mpmath.mpf(border) - offset) / sigma)

    return [below(k + 0.5) - below(k - 0.5) for k in range(-cells, cells + 1)]


def convolved(laws: list[list[mpmath.mpf]]) -> list[mpmath.mpf]:
    together = laws[0]
    for law in laws[1:]:
        found = [mpmath.mpf(0)] * (len(together) + len(law) - 1)
        for i, one in enumerate(together):
            for j, other in enumerate(law):
                found[i + j] += one * other
        together = found
    return together


def ideal(total: float, sigma: float, honest: int, cells: int) -> list[mpmath.mpf]:
    """The law of `total` + N + U_2 + ... + U_h, rounded: a difference of order h of an antiderivative.

    Those of the standard normal density obey I_n(x) = (x I_{n-1}(x) + I_{n-2}(x)) / (n - 1).
    """
    std = mpmath.sqrt(honest) * sigma

    def antiderivative(x: mpmath.mpf) -> mpmath.mpf:
        """Of order `honest`, of the normal density of standard deviation `std`."""
        before, now = mpmath.npdf(x / std), mpmath.ncdf(x / std)
        for order in range(2, honest + 1):
            before, now = now, (x / std * now + before) / (order - 1)
        return now * std ** (honest - 1)

    def mass(k: int) -> mpmath.mpf:
        x = mpmath.mpf(k) - total
        borders = range(honest + 1)
        return mpmath.fsum(
            (-1) ** j * mpmath.binomial(honest, j) * antiderivative(x + mpmath.mpf(honest) / 2 - j)
            for j in borders
        )

    return [mass(k) for k in range(-cells, cells + 1)]


def distance(sigma: float, honest: int) -> mpmath.mpf:
    """The exact total variation distance between the sum of what is sent and the ideal, step 1."""
    cells = math.ceil(9 * sigma) + 2
    offsets = OFFSETS[:honest]
    found = convolved([sent(offset, sigma, cells) for offset in offsets])
    wanted = ideal(math.fsum(offsets), sigma, honest, honest * cells)
    return mpmath.fsum(abs(one - other) for one, other in zip(found, wanted, strict=True)) / 2


@pytest.mark.parametrize(("sigma", "honest"), COARSE)
def test_the_sum_of_rounded_shares_is_within_the_bound_of_the_ideal(sigma: float, honest: int) -> None:
    """And as far from it as the nearest alias of the Fourier series says: exp(-2 t^2 (1 - 1 / h))."""
    found = mpmath.log(distance(sigma, honest))
    assert found <= log_rounding_distance(sigma, 1.0, honest)
    nearest_alias = -2 * (math.pi * sigma) ** 2 * (1 - 1 / honest)
    assert nearest_alias - 3 < found < nearest_alias


def test_the_bound_says_something_long_before_the_grid_in_use() -> None:
    assert log_rounding_distance(1.5, 1.0, 3) < math.log(1e-2)
    assert log_rounding_distance(4.0, 1.0, 100) < math.log(1e-25)


def test_a_grid_as_coarse_as_the_noise_is_no_gaussian_mechanism() -> None:
    """The control: what is bounded above is visible, and far above what a fine grid promises."""
    assert distance(0.3, 2) > 1e-2
    assert log_rounding_distance(0.3, 1.0, 2) > math.log(1e-2)


def test_without_the_uniform_numbers_it_would_not_be_the_ideal() -> None:
    """The control of the ideal: a sum of rounded shares is wider than one rounded sum of shares."""
    sigma, cells = 1.2, 20
    found = convolved([sent(offset, sigma, cells) for offset in OFFSETS[:2]])
    plain = sent(math.fsum(OFFSETS[:2]), math.sqrt(2) * sigma, 2 * cells)
    assert sum(abs(one - other) for one, other in zip(found, plain, strict=True)) / 2 > 1e-3
    assert distance(sigma, 2) < 1e-6


@pytest.mark.parametrize("honest", [2, 20, 1_000])
def test_at_the_grid_in_use_nothing_is_added_to_any_delta(honest: int) -> None:
    """Even at epsilon 1,000, for 1e12 numbers in 1e9 steps."""
    for std in (1e-9, 0.7, 3.0):
        assert std / grid_step(std) >= 64
        tau = log_rounding_distance(std, grid_step(std), honest)
        assert 1_001 + math.log(1e12 * 1e9) + tau < -8_000 * math.log(10)


def test_the_distance_grows_with_the_shares_and_shrinks_with_the_grid() -> None:
    by_honest = [log_rounding_distance(1.0, 1.0, honest) for honest in (1, 2, 10, 100)]
    assert by_honest == sorted(by_honest)
    assert by_honest[0] == -math.inf
    by_step = [log_rounding_distance(1.0, step, 5) for step in (0.01, 0.1, 0.5, 1.0)]
    assert by_step == sorted(by_step)


@pytest.mark.parametrize("honest", range(2, 21))
def test_the_noise_of_honest_shares_together_has_the_variance_of_one_mechanism(honest: int) -> None:
    whole, count = 3.0, 4_000
    std = whole / math.sqrt(honest)
    step = grid_step(std)
    nothing = [torch.zeros(count, dtype=torch.float64)]
    shares = [add_noise(nothing, std, seeded_stream("share", honest, i))[0].numpy() for i in range(honest)]
    assert all((share / step == np.rint(share / step)).all() for share in shares), (
        "each is on one public grid"
    )
    together, fewer = (np.sum(chosen, axis=0) for chosen in (shares, shares[: honest // 2]))
    allowed = 5 * math.sqrt(2 / count)  # five standard deviations of a variance
    assert abs(together.var() / whole**2 - 1) < allowed
    assert abs(fewer.var() / whole**2 - 1) > allowed, "the control: half of them make up half of it"


def test_sums_that_could_leave_32_bits_are_refused_before_anything_is_trained() -> None:
    check_range(0.5, 1.0, 11_959, 100)
    with pytest.raises(UserError, match="too many for sums of 32 bits") as mistake:
        check_range(1e-4, 1.0, 11_959, 100)
    assert "\n" not in str(mistake.value)


def test_the_largest_sum_that_is_accepted_fits_and_the_next_does_not() -> None:
    std, hospitals = 0.5, 4
    fits = int(2**31 * grid_step(std) - 40 * std * 2)
    check_range(std, 1.0, fits - 1, hospitals)
    with pytest.raises(UserError):
        check_range(std, 1.0, fits + 1, hospitals)
