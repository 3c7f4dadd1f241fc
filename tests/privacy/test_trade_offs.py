"""Trade-off curves from an accountant's deltas, against exact ones."""

import math

import numpy as np
import pytest
from epsilon_audit.audited import gaussian_curve
from scipy.stats import norm

from fl_ppae.privacy.accounting import losses_of_encodings, losses_of_updates
from fl_ppae.privacy.events import Gaussian, PoissonGaussian
from fl_ppae.privacy.trade_offs import INTERVAL, curve_of, curve_through

RIGHT = [1e-6, 1e-4, 0.01, 0.05, 0.3, 0.5, 0.8, 0.99, 1.0]


@pytest.mark.parametrize("mu", [0.2, 1.0, 2.5])
def test_a_gaussian_mechanism_has_its_exact_curve(mu: float) -> None:
    exact = norm.cdf(norm.ppf(RIGHT) - mu)
    found = np.array([gaussian_curve(mu)(right) for right in RIGHT])
    assert np.all(found <= exact + 1e-9)
    assert found[1:-1] == pytest.approx(exact[1:-1], rel=0.02)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_pure_epsilon_has_two_lines(epsilon: float) -> None:
    curve = curve_through(np.array([epsilon]), np.zeros(1))
    for right in RIGHT:
        exact = max(right * math.exp(-epsilon), 1 - math.exp(epsilon) * (1 - right))
        assert curve(right) == pytest.approx(exact, abs=1e-12)


def test_delta_alone_allows_delta_without_a_wrong_guess() -> None:
    curve = curve_through(np.zeros(1), np.array([0.25]))
    assert [curve(right) for right in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0, 0, 0.25, 0.75])


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 10), (10.0, 10)])
def test_the_accountants_curve_of_unsampled_noise_is_that_of_one_gaussian(sigma: float, steps: int) -> None:
    curve = curve_of(losses_of_updates([PoissonGaussian(sigma, 1.0, steps, 1)], INTERVAL), 0.0)
    exact = norm.cdf(norm.ppf(RIGHT) - math.sqrt(steps) / sigma)
    found = np.array([curve(right) for right in RIGHT])
    assert np.all(found <= exact + 1e-9)
    assert found[1:-1] == pytest.approx(exact[1:-1], rel=0.03)


def test_encodings_are_moved_by_twice_their_norm() -> None:
    curve = curve_of(losses_of_encodings(Gaussian(2.0, "train", 1), INTERVAL), 0.0)
    assert curve(0.5) == pytest.approx(norm.cdf(-1.0), rel=0.02)


@pytest.mark.parametrize("rate", [0.02, 0.4])
def test_a_sampled_curve_is_below_every_test_on_a_step(rate: float) -> None:
    """The curve bounds all tests: here those that say "in" above a threshold, and "out" below one."""
    sigma = 1.0
    curve = curve_of(losses_of_updates([PoissonGaussian(sigma, rate, 1, 1)], INTERVAL), 0.0)
    for threshold in np.linspace(-3, 4, 15):
        with_it = rate * norm.sf(threshold - 1, scale=sigma) + (1 - rate) * norm.sf(threshold, scale=sigma)
        without = norm.sf(threshold, scale=sigma)
        assert curve(with_it) <= without + 1e-9
        assert curve(1 - without) <= 1 - with_it + 1e-9
    above = rate * norm.sf(0.5) + (1 - rate) * norm.sf(1.5)  # not loose either
    assert curve(above) >= 0.9 * norm.sf(1.5)


def test_a_sampler_s_epsilon_lowers_the_curve() -> None:
    losses = losses_of_updates([PoissonGaussian(2.0, 0.5, 4, 1)], INTERVAL)
    assert curve_of(losses, 0.1)(0.3) < curve_of(losses, 0.0)(0.3)
