"""Calibration: tight and quick over the whole range that is allowed, and refused outside it."""

import time

import pytest
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

from fl_ppae.config import MIN_NOISE_MULTIPLIER
from fl_ppae.errors import UserError
from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.calibration import calibrate_noise_multiplier
from fl_ppae.privacy.events import TRAIN_PART, Gaussian, PoissonGaussian


def gaussian_delta(sigma: float, steps: int, epsilon: float) -> float:
    """Full batches compose to one Gaussian mechanism, whose delta is known exactly."""
    return float(GaussianPrivacyLoss(sigma / steps**0.5).get_delta_for_epsilon(epsilon))


@pytest.mark.parametrize("target", [0.01, 0.05, 0.5, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-12])
def test_full_batches_get_the_noise_that_the_exact_formula_asks_for(target: float, delta: float) -> None:
    steps = 10
    sigma = calibrate_noise_multiplier(1.0, steps, target, delta)
    assert gaussian_delta(sigma, steps, target) <= delta
    assert gaussian_delta(0.99 * sigma, steps, target) > delta


@pytest.mark.parametrize(
    ("rate", "steps", "target", "delta"),
    [(0.02, 100, 0.02, 1e-5), (0.1, 200, 8.0, 1e-5), (0.3, 10, 0.01, 1e-12), (0.02, 5000, 100.0, 1e-5)],
)
def test_it_is_tight_by_both_accountants_and_takes_seconds(
    rate: float, steps: int, target: float, delta: float
) -> None:
    began = time.monotonic()
    sigma = calibrate_noise_multiplier(rate, steps, target, delta)
    assert time.monotonic() - began < 60
    spent = epsilon([PoissonGaussian(sigma, rate, steps, 1)], delta)
    assert 0.98 * target < spent.spent <= target
    assert spent.prv == pytest.approx(spent.pld, rel=0.01)


def test_the_allowed_error_of_an_accountant_does_not_rule_at_a_small_epsilon() -> None:
    """An own Fourier transform gives 26.6 here; 50.1 was what an error of 0.01 in epsilon asked for."""
    assert calibrate_noise_multiplier(0.02, 100, 0.02, 1e-5) == pytest.approx(26.6, rel=0.01)


@pytest.mark.slow
def test_noise_just_below_the_limit_is_found() -> None:
    assert 8192 < calibrate_noise_multiplier(1.0, 24_300, 0.05, 1e-5) < 10_000


@pytest.mark.parametrize(("target", "delta"), [(500.0, 1e-5), (0.001, 1e-5), (1.0, 1e-15)])
def test_a_target_outside_the_range_is_refused_at_once_and_names_the_keys(
    target: float, delta: float
) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"target-epsilon = .* at target-delta = .*0\.01 to 100"):
        calibrate_noise_multiplier(0.05, 1000, target, delta)
    assert time.monotonic() - began < 1


@pytest.mark.slow
def test_what_no_noise_up_to_the_limit_reaches_is_refused() -> None:
    with pytest.raises(UserError, match="can't be reached"):
        calibrate_noise_multiplier(1.0, 100_000, 0.05, 1e-5)


def test_a_large_target_gets_the_smallest_noise_that_is_allowed() -> None:
    assert calibrate_noise_multiplier(0.01, 1, 100.0, 1e-5) == MIN_NOISE_MULTIPLIER


def test_nothing_is_printed_about_orders(recwarn: pytest.WarningsRecorder) -> None:
    calibrate_noise_multiplier(0.02, 120, 50.0, 1e-5)
    assert not [warning for warning in recwarn if "order" in str(warning.message)]


@pytest.mark.parametrize("rate", [1e-9, 1e-4, 1e-2])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 100.0])
def test_rare_losses_far_above_epsilon_take_no_gigabytes(sigma: float, rate: float) -> None:
    began = time.monotonic()
    spent = epsilon([PoissonGaussian(sigma, rate, 3, 1)], 1e-5)
    encoded = Gaussian(0.6, TRAIN_PART, 1)
    total = replace_one_epsilon([PoissonGaussian(sigma, rate, 3, 1), encoded], 1e-5)
    assert total >= max(spent.pld, replace_one_epsilon([encoded], 1e-5) - 1e-3)
    assert time.monotonic() - began < 60
