"""Randomised response on labels (Warner 1965; k-ary: Kairouz et al. 2016, arXiv:1602.07387).

Guarantee: each released label is (epsilon, 0)-differentially private under replace-one neighbours: any
two true labels give any released label with probabilities within a factor of e^epsilon. It says nothing
about what an encoding released with the label reveals about it.
"""

from __future__ import annotations

import math

import numpy as np

from fl_ppae.config import MIN_LABEL_EPSILON
from fl_ppae.privacy.randomness import Stream

_DRAWN_IN = 2.0**64  # a probability is drawn as a whole number of these parts (`randomness.Stream.bernoulli`)
_HIGHEST_RATE = 1 - 2.0**-53  # accountants take no 1


def replacement_rate(epsilon: float, classes: int) -> float:
    """Probability that a label is redrawn uniformly from all `classes`, including the true one.

    Strictly between 0 and 1. Rounded up to a multiple of 2**-64, which can be drawn exactly: rounded down, a
    large epsilon would never redraw a label.
    """
    rate = classes * math.exp(-epsilon) / (classes * math.exp(-epsilon) - math.expm1(-epsilon))
    return min(max(1, math.ceil(rate * _DRAWN_IN)) / _DRAWN_IN, _HIGHEST_RATE)


def transition(epsilon: float, classes: int) -> np.ndarray:
    """(K, K) float64: row i, column j is the probability that label i is released as j."""
    rate = replacement_rate(epsilon, classes)
    return (1 - rate) * np.eye(classes) + rate / classes


def randomised_response(labels: np.ndarray, epsilon: float, classes: int, stream: Stream) -> np.ndarray:
    """Released labels (N,) int64 of true ones (N,), all in [0, classes).

    Raises:
        ValueError: a record has several labels, each of which would cost epsilon.
    """
    if labels.ndim != 1:
        raise ValueError(f"one label a record can be randomised, not {labels.shape[1:]}")
    anew = stream.bernoulli(len(labels), replacement_rate(epsilon, classes))
    drawn = stream.integers(len(labels), classes)
    return np.where(anew, drawn, labels).astype(np.int64)


def unbiased_weights(released: np.ndarray, epsilon: float, classes: int) -> np.ndarray:
    """(N, K) float64: for each record, a weight per class with expectation 1 for the true class, else 0.

    Rows of the inverse of `transition`, in closed form: 1 + (K - 1) / (e^epsilon - 1) for the released class,
    -1 / (e^epsilon - 1) for the others. Each row sums to 1 within 1e-5. Sums over records with these weights
    are unbiased.

    Raises:
        ValueError: epsilon is so small that float64 can't hold weights that sum to 1.
    """
    if not epsilon >= MIN_LABEL_EPSILON:
        raise ValueError(f"labels of epsilon {epsilon:g} have no weights; {MIN_LABEL_EPSILON:g} is the least")
    other = math.exp(-epsilon) / -math.expm1(-epsilon)
    weights: np.ndarray = ((1 + classes * other) * np.eye(classes) - other)[released]
    return weights
