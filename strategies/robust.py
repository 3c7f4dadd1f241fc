"""Aggregations that a few wrong updates can't carry away. Each hospital counts once, whatever its records.

Guarantee: post-processing of what the hospitals released: no epsilon changes. They differ in what is left
of the noise: a mean of n updates has 1 / n of its variance, a median about pi / 2n, Krum all of one's.

Flower has the same rules as strategies of their own (`FedMedian`, `FedTrimmedAvg`, `Krum`), with which
these are compared in the tests. Krum is not taken from there because it expands |x - y|^2 in float32:
updates that are close together, as after a short round, then differ by less than its rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fl_ppae.errors import UserError

Update = Mapping[str, np.ndarray]

TRIMMED_SHARE = 0.2  # of the hospitals, cut off at each end, but at least one
AVERAGE = "average"


def median(updates: np.ndarray) -> np.ndarray:
    """(n, d) to (d,): the coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, definition 1)."""
    return np.median(updates, axis=0)


def trimmed_mean(updates: np.ndarray) -> np.ndarray:
    """(n, d) to (d,): of each coordinate the mean of what is left without its largest and smallest values
    (Yin et al. 2018, arXiv:1803.01498, definition 2). Nothing is cut of fewer than three."""
    count = len(updates)
    cut = max(1, int(TRIMMED_SHARE * count)) if count > 2 else 0
    kept: np.ndarray = np.sort(updates, axis=0)[cut : count - cut]
    return kept.mean(axis=0)


def krum(updates: np.ndarray) -> np.ndarray:
    """(n, d) to (d,): the update whose n - f - 2 nearest others are the nearest, by squared distance
    (Blanchard et al. 2017, arXiv:1703.02757, section 4). f is the most that it allows, 2 f + 2 < n.
    Of equals the first."""
    count = len(updates)
    neighbours = max(1, count - wrong_updates(count) - 2)
    distances = np.array([np.square(updates - one).sum(axis=1) for one in updates], dtype=float)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :neighbours].sum(axis=1)
    return updates[int(scores.argmin())]


def wrong_updates(count: int) -> int:
    """How many of `count` updates Krum takes to be wrong."""
    return max(0, (count - 3) // 2)


_RULES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "median": (median, 3),
    "trimmed-mean": (trimmed_mean, 3),
    "krum": (krum, 5),
}


def combine(aggregation: str, updates: Sequence[Update]) -> dict[str, np.ndarray]:
    """The hospitals' updates, float32 arrays by name, as one.

    Krum compares whole updates; the other two treat each number by itself. On which `updates` come first
    depends only which of two equally good ones Krum takes.
    """
    rule, _ = _RULES[aggregation]
    flat = np.stack([np.concatenate([array.ravel() for array in one.values()]) for one in updates])
    combined = rule(flat.astype(np.float64)).astype(np.float32)
    ends = np.cumsum([array.size for array in updates[0].values()])[:-1]
    parts = np.split(combined, ends)
    return {
        name: part.reshape(array.shape) for (name, array), part in zip(updates[0].items(), parts, strict=True)
    }


def check_enough(aggregation: str, hospitals: int) -> None:
    """Refuse an aggregation that could outvote no one among `hospitals`.

    Raises:
        UserError: how many it needs.
    """
    if aggregation == AVERAGE:
        return
    needed = _RULES[aggregation][1]
    if hospitals < needed:
        raise UserError(
            f'aggregation = "{aggregation}" needs at least {needed} hospitals to outvote one, '
            f'there are {hospitals}; use "{AVERAGE}" or more hospitals'
        )
