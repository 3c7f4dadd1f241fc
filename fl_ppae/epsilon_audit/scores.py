"""Scores of canaries: how much likelier the noised sums of a training are with a canary than without.

The adversary knows the plan and each canary's coordinates. In a step at sample rate q, a canary that is in
adds c to each of its coordinates with probability q, where c = clipping norm / sqrt(COORDINATES); what else
is there is close to normal, of standard deviation s. With one coordinate, the log-likelihood ratio is
    log(1 - q + q exp(c x / s^2 - c^2 / (2 s^2))),
the accountant's own model of a step; with several, the exponents add up, and so do the steps.

s is not taken from the plan: it is the root mean square of what was released, for each parameter and step.
So a step or a parameter with too little noise counts for more. Whatever a score is, the bound is valid,
because the coins aren't looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fl_ppae.epsilon_audit.canaries import COORDINATES, Layout

_LARGEST_SHIFT = 3.0  # in s: sums that are scaled down as a whole would otherwise look like no canary's


class SumScores:
    """Scores from the noised sums, step by step.

    Attributes:
        scores: (m,) float64, over all steps so far.
    """

    def __init__(self, layout: Layout, max_grad_norm: float, sample_rate: float) -> None:
        self._layout = layout
        self._shift = max_grad_norm / COORDINATES**0.5
        self._rate = sample_rate
        self.scores = np.zeros(len(layout.coordinates))

    def add(self, released: np.ndarray) -> None:
        """Take one step's noised sums (d,) into account."""
        spread = root_mean_squares(self._layout, released)[self._layout.parameter]
        shift = np.minimum(self._shift / spread, _LARGEST_SHIFT)
        seen = released[self._layout.coordinates] / spread
        evidence = (shift * seen - shift**2 / 2).sum(axis=1)
        with np.errstate(divide="ignore"):
            out, into = np.log1p(-self._rate), np.log(self._rate)
        self.scores += np.logaddexp(out, into + evidence)


class WeightScores:
    """Scores from what a server sees: how far the returned weights moved against a canary's gradient.

    Attributes:
        scores: (m,) float64, over all rounds so far; 0 for canaries that lie outside the shared encoder.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.scores = np.zeros(len(layout.coordinates))

    def add(self, moved: np.ndarray) -> None:
        """Take one round's change of the encoder's weights (encoder's numbers,) into account.

        The encoder's parameters are the first of the layout.
        """
        padded = np.zeros(self._layout.starts[-1])
        padded[: len(moved)] = -moved
        spread = root_mean_squares(self._layout, padded)[self._layout.parameter]
        self.scores += (padded[self._layout.coordinates] / spread).sum(axis=1)


def flattened(tensors: Sequence[Tensor]) -> np.ndarray:
    """(d,) float64: all numbers, in order."""
    parts = [tensor.cpu().numpy().reshape(-1) for tensor in tensors]
    return np.concatenate(parts).astype(np.float64)


def root_mean_squares(layout: Layout, numbers: np.ndarray) -> np.ndarray:
    """(parameters,): of each parameter's part of `numbers` (d,), at least 1e-30."""
    squares = np.add.reduceat(numbers**2, layout.starts[:-1])
    return np.maximum(np.sqrt(squares / np.diff(layout.starts)), 1e-30)
