"""The noise for a budget: the smallest noise multiplier whose cost both accountants confirm.

Guarantee: what is returned costs at most the target epsilon at the given delta, by `privacy.accounting` and
under its assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from dp_accounting.pld.common import DifferentialPrivacyParameters
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from scipy.optimize import brentq

from fl_ppae.config import MIN_NOISE_MULTIPLIER
from fl_ppae.errors import UserError
from fl_ppae.privacy.accounting import pld, prv, renyi_bound, replace_one_epsilon
from fl_ppae.privacy.events import TRAIN_PART, Gaussian
from fl_ppae.privacy.noise import SAMPLER_EPSILON

MAX_NOISE_MULTIPLIER = 1e4
SMALLEST_EPSILON, LARGEST_EPSILON, SMALLEST_DELTA = 0.01, 100.0, 1e-12
_TOLERANCE = 2.5e-4  # of a noise multiplier, before the search among its neighbours
_HOPELESS = 30.0  # times the target: a Renyi bound above it (and 30 more) is not looked into


@lru_cache(maxsize=4096)
def calibrate_noise_multiplier(
    sample_rate: float, steps: int, target_epsilon: float, delta: float, honest: int = 1
) -> float:
    """The smallest four-digit noise multiplier at which `steps` steps cost at most `target_epsilon`.

    Both accountants confirm it: `epsilon(...).spent <= target_epsilon`. Server and hospital calibrate
    separately and must reach the same number even if their processors and threads differ in the last
    digits, hence four digits.

    Args:
        honest: whose noise makes up the multiplier, each drawn by a sampler of its own.

    Raises:
        UserError: no noise multiplier up to 10,000 is enough; or the target is outside epsilon 0.01 to 100,
            or delta below 1e-12.
    """

    if not SMALLEST_EPSILON <= target_epsilon <= LARGEST_EPSILON or not delta >= SMALLEST_DELTA:
        raise UserError(
            f"target-epsilon = {target_epsilon:g} at target-delta = {delta:g}: noise is calibrated for "
            f"epsilon {SMALLEST_EPSILON:g} to {LARGEST_EPSILON:g} and delta from {SMALLEST_DELTA:g}"
        )

    besides = (honest - 1) * SAMPLER_EPSILON

    def spent(sigma: float) -> float:
        merged = ((sigma, sample_rate, steps),)
        bound = renyi_bound(merged, delta)
        return bound if bound > _HOPELESS * target_epsilon + 30 else prv(merged, delta) + besides

    def fits(sigma: float) -> bool:
        return spent(sigma) <= target_epsilon

    def both_fit(sigma: float) -> bool:
        return fits(sigma) and pld(((sigma, sample_rate, steps),), delta) + besides <= target_epsilon

    def excess(log_sigma: float) -> float:
        return math.log(spent(math.exp(log_sigma)) / target_epsilon)

    high = 1.0
    while not fits(high):
        high = 2 * high if high == MAX_NOISE_MULTIPLIER else min(2 * high, MAX_NOISE_MULTIPLIER)
        if high > MAX_NOISE_MULTIPLIER:
            raise UserError(
                f"target-epsilon = {target_epsilon} can't be reached in {steps} steps at sample rate "
                f"{sample_rate:.3g}, delta {delta:.3g}; ask for more epsilon or fewer rounds"
            )
    low = high / 2
    # In small steps, because accounting is slow at low noise.
    while high <= 1.0 and low > MIN_NOISE_MULTIPLIER and fits(low):
        high, low = low, max(MIN_NOISE_MULTIPLIER, low / 1.5)
    near = low
    if not fits(low):
        # Brent's method: epsilon is nearly linear on logarithmic scales.
        near = math.exp(brentq(excess, math.log(low), math.log(high), xtol=_TOLERANCE))
    return _smallest(both_fit, near, at_least=MIN_NOISE_MULTIPLIER)


def _smallest(fits: Callable[[float], bool], near: float, at_least: float = 0.0) -> float:
    """The smallest number of four significant digits that fits, searched for from `near`."""
    sigma = _four_digits(near)
    while not fits(sigma):
        sigma = _four_digits(sigma, 1)
    while (less := _four_digits(sigma, -1)) >= at_least and fits(less):
        sigma = less
    return sigma


def _four_digits(value: float, step: int = 0) -> float:
    """`value` rounded to four significant digits, then moved by `step` units of the last digit."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{value + step * unit:.3e}")


@lru_cache(maxsize=128)
def calibrate_encoding_noise(target_epsilon: float, delta: float) -> float:
    """The smallest four-digit noise multiplier at which one release of clipped encodings costs at most
    `target_epsilon`.

    Replace-one: two encodings of norm C are at most 2 C apart. By the analytic Gaussian mechanism
    (Balle and Wang 2018, arXiv:1805.06530), valid for every epsilon; PLD confirms the result.
    """
    wanted = DifferentialPrivacyParameters(target_epsilon, delta)
    near = GaussianPrivacyLoss.from_privacy_guarantee(wanted, sensitivity=2.0).standard_deviation
    return _smallest(
        lambda sigma: replace_one_epsilon([Gaussian(sigma, TRAIN_PART, 1)], delta) <= target_epsilon, near
    )
