"""Means over seeds and their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean of `n` values with its two-sided 95 % interval; the ends are NaN for fewer than two values."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval: {self.n} seed)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: Sequence[float]) -> Mean:
    """Student's t-interval of the mean, (n - 1 degrees of freedom). Assumes nearly normal values.

    With 3 seeds it is 2.5 standard deviations to each side: wide, and honestly so. It covers the seeds
    (initial weights, noise, sampling, dealing out), not the choice of images.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("the mean of no values")
    found, n = float(np.mean(values)), len(values)
    if n < 2:
        return Mean(found, math.nan, math.nan, n)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Mean(found, found - half, found + half, n)
