"""What events cost: epsilon at a delta by two independent accountants, and the noise for a budget.

Guarantee computed here: (epsilon, delta)-differential privacy of one record under add-or-remove-one
neighbours, composed over *all* events given, assuming that each batch was drawn by Poisson sampling
at the event's sample rate and each sum was clipped to the sensitivity that its noise is scaled by.

PRV: Gopi, Lee, Wutschitz 2021 (arXiv:2106.02848), in Opacus. PLD: Koskela et al. 2020
(arXiv:1906.03049) with pessimistic rounding, in dp-accounting. Neither reads the other's code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce

from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism
from opacus.accountants import PRVAccountant

from fl_ppae.config import MIN_NOISE_MULTIPLIER
from fl_ppae.errors import UserError
from fl_ppae.privacy.events import Event, merge

MAX_NOISE_MULTIPLIER = 1e4
_RELATIVE_TOLERANCE = 1e-3

Merged = tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Epsilon:
    """One composition's epsilon by both accountants. `spent` is what counts: the larger."""

    prv: float
    pld: float

    @property
    def spent(self) -> float:
        """The larger of the two: when in doubt the ledger over-states."""
        return max(self.prv, self.pld)


def epsilon(events: Iterable[Event], delta: float) -> Epsilon:
    """(epsilon, delta) of everything in `events` together; 0 for no events.

    Raises:
        ValueError: delta outside (0, 1).
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), not {delta}")
    merged = merge(events)
    return Epsilon(prv=_prv(merged, delta), pld=_pld(merged, delta))


@lru_cache(maxsize=4096)
def _prv(merged: Merged, delta: float) -> float:
    if not merged:
        return 0.0
    accountant = PRVAccountant()
    accountant.history = list(merged)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=4096)
def _pld(merged: Merged, delta: float) -> float:
    if not merged:
        return 0.0
    parts = [_one_step(sigma, rate).self_compose(steps) for sigma, rate, steps in merged]
    return float(reduce(lambda left, right: left.compose(right), parts).get_epsilon_for_delta(delta))


@lru_cache(maxsize=128)
def _one_step(sigma: float, rate: float) -> PrivacyLossDistribution:
    """One step's distribution: most of an accountant's time goes here, and it is the same every round."""
    return from_gaussian_mechanism(
        sigma, value_discretization_interval=1e-4, sampling_prob=rate, use_connect_dots=True
    )


@lru_cache(maxsize=4096)
def calibrate_noise_multiplier(sample_rate: float, steps: int, target_epsilon: float, delta: float) -> float:
    """The smallest noise multiplier (to 0.1 %) at which `steps` steps cost at most `target_epsilon`.

    Both accountants agree to the result: `epsilon(...).spent <= target_epsilon`.

    Raises:
        UserError: no noise multiplier up to 10,000 is enough.
    """

    def fits(sigma: float) -> bool:
        return _prv(((sigma, sample_rate, steps),), delta) <= target_epsilon

    high = 1.0
    while not fits(high):
        high *= 2
        if high > MAX_NOISE_MULTIPLIER:
            raise UserError(
                f"target-epsilon = {target_epsilon} can't be reached in {steps} steps at sample rate "
                f"{sample_rate:.3g}, delta {delta:.3g}; ask for more epsilon or fewer rounds"
            )
    low = MIN_NOISE_MULTIPLIER if high == 1.0 else high / 2
    if fits(low):
        high = low
    while high / low > 1 + _RELATIVE_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    while _pld(((high, sample_rate, steps),), delta) > target_epsilon:
        high *= 1 + _RELATIVE_TOLERANCE
    return high
