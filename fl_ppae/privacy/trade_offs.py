"""How often guesses about one record must be wrong, by the accountant's own privacy loss distributions.

A curve is a function from x = P[a test says "in" when the record is in] to the least possible
P[the test says "in" when it is out], and alike with "in" and "out" exchanged: the trade-off function f of
f-differential privacy (arXiv:1905.02383), as x -> f(1 - x). If the mechanism is (epsilon, delta(epsilon))
private in both directions for every epsilon >= 0, then
    least wrong(x) >= max(0, e^-epsilon (x - delta), 1 - delta - e^epsilon (1 - x)),
by the definition for the test and for its complement. A curve is the largest of these lines over a grid of
epsilons, so it is never above the truth: what it refutes, the accountant's claim refutes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

Curve = Callable[[float], float]

INTERVAL = 5e-3  # of losses: ten times the ledger's, which costs 0.1 % of a curve and a tenth of the time
_EPSILONS = 200
_SMALLEST_DELTA = 1e-13
_COMPLEMENT = 8.0  # largest epsilon of a line for the complement: beyond, rounding would exceed the margin
_MARGIN = 1e-12  # on delta, for rounding


def curve_of(losses: PrivacyLossDistribution, sampler_epsilon: float) -> Curve:
    """The curve of a mechanism from its privacy losses, whose every epsilon is `sampler_epsilon` larger."""
    most = losses.get_epsilon_for_delta(_SMALLEST_DELTA)
    epsilons = np.linspace(0, min(most, 700.0), _EPSILONS)
    deltas = np.asarray(losses.get_delta_for_epsilon(epsilons)) + _MARGIN
    return curve_through(epsilons + sampler_epsilon, deltas)


def curve_through(epsilons: np.ndarray, deltas: np.ndarray) -> Curve:
    """The curve of a mechanism that is (epsilons[i], deltas[i])-private for every i."""
    mild = epsilons <= _COMPLEMENT
    slopes = np.concatenate([[0.0], np.exp(-epsilons), np.exp(epsilons[mild])])
    heights = np.concatenate([[0.0], -np.exp(-epsilons) * deltas, 1 - deltas[mild] - np.exp(epsilons[mild])])
    lines, starts = _envelope(slopes, heights)
    slope, height = slopes[lines].tolist(), heights[lines].tolist()

    def least_wrong(right: float) -> float:
        line = bisect_right(starts, right) - 1
        value: float = slope[line] * right + height[line]
        return value

    return least_wrong


def _envelope(slopes: np.ndarray, heights: np.ndarray) -> tuple[list[int], list[float]]:
    """Which lines are the largest somewhere on [0, 1], by slope, and where each of them begins to be so."""
    lines: list[int] = []
    starts: list[float] = []
    for line in np.lexsort((heights, slopes)).tolist():
        start = -np.inf
        while lines:
            rise, drop = slopes[line] - slopes[lines[-1]], heights[lines[-1]] - heights[line]
            start = drop / rise if rise > 0 else -np.inf
            if start > starts[-1]:
                break
            lines.pop()
            starts.pop()
            start = -np.inf
        if start < 1:
            lines.append(line)
            starts.append(start)
    return lines, starts
