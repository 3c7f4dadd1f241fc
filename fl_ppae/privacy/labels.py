"""Randomised response on labels (Warner 1965; k-ary: Kairouz et al. 2016, arXiv:1602.07387).

Guarantee: each released label is (epsilon, 0)-differentially private under replace-one neighbours: any
two true labels give any released label with probabilities within a factor of e^epsilon. It says nothing
about what an encoding released with the label reveals about it.
"""

from __future__ import annotations

import math

import numpy as np

from fl_ppae.privacy.randomness import Stream


def replacement_rate(epsilon: float, classes: int) -> float:
    """Probability that a label is redrawn uniformly from all `classes`, including the true one."""
    return classes / (math.expm1(epsilon) + classes)


def transition(epsilon: float, classes: int) -> np.ndarray:
    """(K, K) float64: row i, column j is the probability that label i is released as j."""
    rate = replacement_rate(epsilon, classes)
    return (1 - rate) * np.eye(classes) + rate / classes


def randomised_response(labels: np.ndarray, epsilon: float, classes: int, stream: Stream) -> np.ndarray:
    """Released labels (N,) int64 of true ones (N,), all in [0, classes)."""
    anew = stream.bernoulli(len(labels), replacement_rate(epsilon, classes))
    drawn = stream.integers(len(labels), classes)
    return np.where(anew, drawn, labels).astype(np.int64)


def unbiased_weights(released: np.ndarray, epsilon: float, classes: int) -> np.ndarray:
    """(N, K) float64: for each record, a weight per class with expectation 1 for the true class, else 0.

    Rows of the inverse of `transition`; some are negative. Sums over records with these weights are unbiased.
    """
    return np.linalg.inv(transition(epsilon, classes))[released]
