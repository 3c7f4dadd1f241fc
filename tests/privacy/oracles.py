"""Epsilon by dp-accounting's own accountants, called as its documentation says."""

import math
from collections.abc import Sequence

from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    RandomizedResponseDpEvent,
)
from dp_accounting.pld import PLDAccountant

from fl_ppae.privacy.events import Event, Gaussian, PoissonGaussian, RandomisedResponse

DELTA = 1e-5
UPLOAD = (Gaussian(1.2, "train", 3), RandomisedResponse(2.0, 8, 3))


def oracle(parts: Sequence[tuple[float, float, int]], delta: float = DELTA) -> float:
    """Epsilon of (noise multiplier, sample rate, steps), if one record is added or removed."""
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    for sigma, rate, steps in parts:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    return float(accountant.get_epsilon(delta))


def agrees(spent: float, expected: float) -> bool:
    """Within 0.5 % or the step of the oracle's grid, 1e-4, to whose next point it rounds every step."""
    return abs(spent - expected) <= 1e-4 + 0.005 * expected


def replace_one_oracle(events: Sequence[Event]) -> float:
    """Epsilon if one record is replaced; the clipping norm is 1, as ours."""
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    for event in events:
        if isinstance(event, PoissonGaussian):
            step = PoissonSampledDpEvent(event.sample_rate, GaussianDpEvent(event.noise_multiplier))
            accountant.compose(step, event.steps)
        elif isinstance(event, Gaussian):
            accountant.compose(GaussianDpEvent(event.noise_multiplier))
        else:
            # dp-accounting's parameter: the chance that the answer is drawn from all buckets.
            chance = event.classes / (math.exp(event.epsilon) + event.classes - 1)
            accountant.compose(RandomizedResponseDpEvent(chance, event.classes))
    return float(accountant.get_epsilon(DELTA))
