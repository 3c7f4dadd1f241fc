"""95 % confidence intervals: which kind each measurement gets.

- A mean, over seeds, hospitals or images: Student's t. A percentile bootstrap over 3 to 8 values covers 70 to
  89 %, t 93 to 95 % where values are roughly symmetric; 88 % where they are exponentially distributed.
- A share of hits: Clopper and Pearson's, exact.
- A difference: paired, over seeds or over seeds and images together.
- A statistic of distances between images: a jackknife over blocks.
- A rank correlation: Bonett and Wright's.
- An area under a ROC curve, and a point on it: `leakage.membership`.

`among` is the number of intervals from which a reader may pick the most striking: the worst hospital or
class, the best of several attackers. Then all of them hold together in 95 % (Bonferroni: 1 - 0.05 / among
each).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, spearmanr, t

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired

Array = NDArray[Any]

_BLOCKS = 20
_FEWEST_RANKS = 8  # with 5 pairs of strongly correlated values the interval covers 73 %


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval, from `n` values; the ends are NaN if it has none."""

    value: float
    low: float
    high: float
    n: int


def tail(among: int = 1) -> float:
    """The probability that each end of an interval leaves out, if `among` intervals hold together."""
    return 0.025 / among


def t_mean(values: Sequence[float] | Array, among: int = 1) -> Estimate:
    """The mean of independent values (N,) with Student's t-interval, N - 1 degrees of freedom.

    No interval for fewer than two values.

    Raises:
        Unmeasurable: there are no values, or one is not finite.
    """
    found = np.asarray(values, np.float64)
    if not len(found):
        raise Unmeasurable("the mean of no values")
    check_finite(values=found)
    if len(found) < 2:
        return Estimate(float(found.mean()), math.nan, math.nan, len(found))
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    return _around(float(found.mean()), error, len(found) - 1, len(found), among)


def paired_difference(one: Array, other: Array) -> Estimate:
    """The mean of `one - other`, paired by seed (S,), or by seed and test image (S, I), with its t-interval.

    With images it covers new seeds and new images alike: the variance of the mean is that of a two-way table
    without replication, (seeds + images - residual), and never less than that of seeds or images alone; its
    degrees of freedom are Satterthwaite's (1946). `n` counts seeds. No interval for a single seed, nor for
    seeds without any difference between them on a single image.

    Raises:
        Unmeasurable: shapes differ, there are no seeds, or a value is not finite.
    """
    if np.shape(one) != np.shape(other):
        raise Unmeasurable(f"{np.shape(one)} values against {np.shape(other)}")
    table = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    check_finite(values=table)
    if table.ndim == 1:
        return t_mean(table)
    seeds, images = table.shape
    if min(seeds, images) < 2:
        return t_mean(table.mean(1))
    centre, by_seed, by_image = table.mean(), table.mean(1), table.mean(0)
    residual = table - by_seed[:, None] - by_image[None] + centre
    parts = np.array([by_seed.var(ddof=1) / seeds, by_image.var(ddof=1) / images])
    degrees = np.array([seeds - 1, images - 1])
    rest = float((residual**2).sum()) / float(degrees.prod()) / table.size
    variance = max(*parts, parts.sum() - rest)
    spread = float((parts**2 / degrees).sum()) + rest**2 / float(degrees.prod())
    freedom = max(1.0, variance**2 / spread) if spread else 1.0
    return _around(float(centre), math.sqrt(variance), freedom, seeds)


def share(hits: float, n: int, among: int = 1) -> Estimate:
    """The share of `n` independent trials that are hits, with Clopper and Pearson's exact interval (1934).

    It covers at least 95 % for every true share. `hits` may be a fraction: an image that ties with others is
    a part of a hit.

    Raises:
        Unmeasurable: n is 0, or there are more hits than trials.
    """
    if n < 1 or not 0 <= hits <= n:
        raise Unmeasurable(f"{hits} of {n}")
    low = float(beta.ppf(tail(among), hits, n - hits + 1)) if hits else 0.0
    high = float(beta.isf(tail(among), hits + 1, n - hits)) if hits < n else 1.0
    return Estimate(hits / n, low, high, n)


def jackknife(statistic: Callable[[Array], float], n: int, among: int = 1) -> Estimate:
    """A statistic of `n` pairs, given their positions, with the t-interval of a jackknife over 20 blocks.

    For statistics of distances between images, such as distance correlation: a bootstrap would draw an
    image twice, and two copies have distance 0.

    Raises:
        Unmeasurable: fewer than 40 pairs, or the statistic is not finite.
    """
    if n < 2 * _BLOCKS:
        raise Unmeasurable(f"needs {2 * _BLOCKS} pairs or more, got {n}")
    everything = np.arange(n)
    blocks = np.array_split(np.random.default_rng(0).permutation(n), _BLOCKS)
    left_out = np.array([statistic(np.setdiff1d(everything, block)) for block in blocks])
    check_finite(statistic=left_out)
    error = math.sqrt((_BLOCKS - 1) / _BLOCKS * np.sum((left_out - left_out.mean()) ** 2))
    return _around(float(statistic(everything)), error, _BLOCKS - 1, n, among)


def rank_correlation(left: Sequence[float] | Array, right: Sequence[float] | Array) -> Estimate:
    """Spearman's rank correlation of pairs (N,), with Bonett and Wright's interval (Psychometrika 65, 2000).

    Fisher's z with variance (1 + r^2 / 2) / (N - 3). NaN if one side is constant or there are fewer than two
    pairs; no interval for fewer than 8.

    Raises:
        Unmeasurable: not as many values on both sides, or one that is not finite.
    """
    check_paired(0, left=left, right=right)
    check_finite(left=np.asarray(left), right=np.asarray(right))
    n = len(left)
    varied = n > 1 and np.ptp(left) > 0 and np.ptp(right) > 0
    value = float(spearmanr(left, right).statistic) if varied else math.nan
    if n < _FEWEST_RANKS or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n)
    half = float(norm.isf(tail())) * math.sqrt((1 + value**2 / 2) / (n - 3))
    centre = math.atanh(max(-0.999999, min(0.999999, value)))
    return Estimate(value, math.tanh(centre - half), math.tanh(centre + half), n)


def _around(value: float, error: float, degrees: float, n: int, among: int = 1) -> Estimate:
    half = float(t.isf(tail(among), degrees)) * error
    return Estimate(value, value - half, value + half, n)
