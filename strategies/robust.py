"""Robust aggregation: a few wrong updates can't dominate. Each hospital counts once, whatever its size.

Guarantee: aggregation post-processes released updates, so no epsilon changes. The rules keep different
shares of one update's noise variance: the mean of n updates 1 / n, a median about pi / 2n, Krum all of it.

Flower has the same rules as strategies (`FedMedian`, `FedTrimmedAvg`, `Krum`); the tests compare with them.
Flower's Krum expands |x - y|^2 in float32, so that close updates, as after a short round, differ by less
than its rounding; hence the implementation here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fl_ppae.errors import UserError

Update = Mapping[str, np.ndarray]

TRIMMED_SHARE = 0.2  # of the hospitals, trimmed at each end, but at least one
AVERAGE = "average"


def median(updates: np.ndarray) -> np.ndarray:
    """(n, d) to (d,): the coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, definition 1)."""
    return np.median(updates, axis=0)


def trimmed_mean(updates: np.ndarray) -> np.ndarray:
    """(n, d) to (d,), n at least 3: the mean of each coordinate without its largest and smallest values
    (Yin et al. 2018, arXiv:1803.01498, definition 2)."""
    count = len(updates)
    cut = max(1, int(TRIMMED_SHARE * count))
    kept: np.ndarray = np.sort(updates, axis=0)[cut : count - cut]
    return kept.mean(axis=0)


def krum(updates: np.ndarray) -> np.ndarray:
    """(n, d) to (d,): the update with the least sum of squared distances to its n - f - 2 nearest others
    (Blanchard et al. 2017, arXiv:1703.02757, section 4). f is the largest with 2 f + 2 < n. The first wins
    a tie."""
    count = len(updates)
    neighbours = max(1, count - wrong_updates(count) - 2)
    distances = np.array([np.square(updates - one).sum(axis=1) for one in updates], dtype=float)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :neighbours].sum(axis=1)
    return updates[int(scores.argmin())]


def wrong_updates(count: int) -> int:
    """How many of `count` updates Krum assumes to be wrong."""
    return max(0, (count - 3) // 2)


_RULES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "median": (median, 3),
    "trimmed-mean": (trimmed_mean, 3),
    "krum": (krum, 5),
}


def combine(aggregation: str, updates: Sequence[Update]) -> dict[str, np.ndarray]:
    """Combine the hospitals' updates, float32 arrays by name, into one.

    Krum compares whole updates; the other two rules treat each number by itself. The order of `updates`
    only decides ties in Krum.

    Raises:
        ValueError: too few updates, as `too_few` says.
    """
    if reason := too_few(aggregation, len(updates)):
        raise ValueError(reason)
    rule, _ = _RULES[aggregation]
    names = list(updates[0])  # each update may have them in another order
    flat = np.stack([np.concatenate([one[name].ravel() for name in names]) for one in updates])
    combined = rule(flat.astype(np.float64)).astype(np.float32)
    ends = np.cumsum([array.size for array in updates[0].values()])[:-1]
    parts = np.split(combined, ends)
    return {
        name: part.reshape(array.shape) for (name, array), part in zip(updates[0].items(), parts, strict=True)
    }


def too_few(aggregation: str, updates: int) -> str:
    """Why this many updates of a round can't be combined; empty if they can.

    With two, a median is a mean, nothing is left after trimming, and Krum takes the first: one wrong update
    could win. A round may have so few if others were lost, declined or were excluded.
    """
    needed = _needed(aggregation)
    if updates >= needed:
        return ""
    return f'aggregation = "{aggregation}" needs {needed} updates to outvote one, {updates} came'


def check_enough(aggregation: str, hospitals: int) -> None:
    """Refuse a rule that needs more than `hospitals` to outvote one of them.

    Raises:
        UserError: says how many it needs.
    """
    needed = _needed(aggregation)
    if hospitals < needed:
        raise UserError(
            f'aggregation = "{aggregation}" needs at least {needed} hospitals to outvote one, '
            f'there are {hospitals}; use "{AVERAGE}" or more hospitals'
        )


def _needed(aggregation: str) -> int:
    return 1 if aggregation == AVERAGE else _RULES[aggregation][1]
