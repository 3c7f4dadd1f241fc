"""What a hospital makes of the common model for itself: the common and its own network, answering together.

Nothing of it leaves the hospital, so it costs no epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

Array = NDArray[np.floating]

_SMALLEST = 1e-4  # of a probability: one wrong certainty can't outvote the other model
_LARGEST = 4.0  # of a weight


@dataclass(frozen=True)
class Mixture:
    """Class probabilities proportional to common^`common` * own^`own` (a logarithmic opinion pool)."""

    common: float
    own: float

    def log_probabilities(self, common: Array, own: Array) -> Array:
        """(N, K), of the class probabilities (N, K) of both models."""
        found: Array = log_softmax(self.common * _log(common) + self.own * _log(own), axis=1)
        return found


COMMON_ALONE = Mixture(common=1.0, own=0.0)


def fitted_mixture(common: Array, own: Array, labels: NDArray[np.integer]) -> Mixture:
    """The weights, at least 0, under which records that the own network has not seen are likeliest.

    Their distance from the common model alone is penalised by half its square, as much as one record weighs,
    so that few records move them little.

    Args:
        common, own: class probabilities (N, K) of the same held-out records; none give the common model.
    """

    def cost(weights: Array) -> float:
        found = Mixture(*weights).log_probabilities(common, own)
        away = np.subtract(weights, (COMMON_ALONE.common, COMMON_ALONE.own))
        return float(-found[np.arange(len(labels)), labels].sum() + np.square(away).sum() / 2)

    if not len(labels):
        return COMMON_ALONE
    found = minimize(cost, (1.0, 0.2), method="L-BFGS-B", bounds=[(0.0, _LARGEST)] * 2)
    return Mixture(*map(float, found.x))


def _log(probabilities: Array) -> Array:
    found: Array = np.log(np.asarray(probabilities, np.float64) + _SMALLEST)
    return found
