"""95 % confidence intervals of measurements over images: bootstrap, Wilson and jackknife."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_ppae.leakage.finite import check_finite

Array = NDArray[Any]

_RESAMPLES = 1000
_BLOCKS = 20
_Z = 1.959964  # of 95 %, two sides


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval, from `n` images."""

    value: float
    low: float
    high: float
    n: int


def bootstrap_mean(values: Array) -> Estimate:
    """The mean of one number per image, (N,), with the percentile bootstrap's interval over images.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    if len(values) == 0:
        raise ValueError("the mean of no values")
    check_finite(values=values)
    rng = np.random.default_rng(0)
    values = np.asarray(values, np.float64)
    means = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def wilson(hits: float, n: int) -> Estimate:
    """The share of `n` images that are hits, with Wilson's score interval (1927); also sound near 0 and 1.

    The bootstrap's interval would have no width if nothing, or everything, was hit. `hits` may be a fraction
    (an image that ties with others is a part of a hit), which scipy's interval doesn't take.

    Raises:
        ValueError: n is 0, or there are more hits than images.
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n}")
    share = hits / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def jackknife(statistic: Callable[[Array], float], n: int) -> Estimate:
    """A statistic of `n` pairs, given their positions, with the interval of a jackknife over 20 blocks.

    For statistics of distances between images, such as distance correlation: a bootstrap would draw an
    image twice, and two copies have distance 0.

    Raises:
        ValueError: fewer than 40 pairs, or the statistic is not finite.
    """
    if n < 2 * _BLOCKS:
        raise ValueError(f"needs {2 * _BLOCKS} pairs or more, got {n}")
    everything = np.arange(n)
    blocks = np.array_split(np.random.default_rng(0).permutation(n), _BLOCKS)
    left_out = np.array([statistic(np.setdiff1d(everything, block)) for block in blocks])
    check_finite(statistic=left_out)
    spread = math.sqrt((_BLOCKS - 1) / _BLOCKS * np.sum((left_out - left_out.mean()) ** 2))
    value = float(statistic(everything))
    return Estimate(value, value - _Z * spread, value + _Z * spread, n)
