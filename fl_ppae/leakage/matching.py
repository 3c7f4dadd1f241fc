"""Matching encodings: whose image is this, and are these two of one image?

The attacker holds pairs of encodings that belong together and learns from them what stays the same. It
chooses on pairs that it has not learned from between the Euclidean distance and canonical correlations, whose
log-likelihood ratio is the best score if encodings are Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired

_RIDGES = (1e-8, 1e-4, 1e-2, 1.0)  # of the mean variance
_CLOSEST = 1 - 1e-6  # of correlations, below 1
_SEED = 0
_TIE = 1e-9  # of the scores' spread
_MOST_NUMBERS = 4096  # in an encoding whose covariance is estimated
_MOST_DIRECTIONS = 256

Scores = Callable[[Tensor, Tensor], Tensor]
Whitened = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Matcher:
    """A fitted attacker: `scores` takes encodings (N, d) and (M, d) to (N, M), higher for likelier pairs."""

    name: str
    scores: Scores


def fit_matcher(left: Tensor, right: Tensor) -> Matcher:
    """The matcher that finds most partners among held-out pairs, of those fitted to the other half.

    left, right (N, *encoding): row by row of one image.

    Raises:
        Unmeasurable: fewer than 8 pairs, not as many of both, or a number that is not finite.
    """
    check_paired(8, left=left, right=right)
    check_finite(left=left, right=right)
    left, right = left.flatten(1).double(), right.flatten(1).double()
    order = torch.randperm(len(left), generator=torch.Generator().manual_seed(_SEED))
    fit, held = order[len(order) // 2 :], order[: len(order) // 2]
    options = [nearest(right[fit])]
    if left.shape[1] <= _MOST_NUMBERS:
        ratios = _likelihood_ratios(left[fit], right[fit])
        options += [Matcher("canonical correlations", scores) for scores in ratios]
    return max(options, key=lambda option: top1(option, left[held], right[held]).mean().item())


def nearest(known: Tensor) -> Matcher:
    """The matcher that needs no pairs: Euclidean distance, each number in units of its spread in `known`."""
    spread = known.flatten(1).double().std(0)
    scale = torch.where(spread > 1e-9 * spread.max(), spread, torch.inf)  # constant: no weight
    return Matcher("Euclidean distance", lambda left, right: -torch.cdist(left / scale, right / scale))


def top1(matcher: Matcher, queries: Tensor, candidates: Tensor) -> Tensor:
    """(N,): 1 where an encoding's own image scores highest of all N candidates; a share of it in ties."""
    scores = matcher.scores(queries.flatten(1).double(), candidates.flatten(1).double())
    own, slack = scores.diagonal()[:, None], _TIE * scores.std()
    better = (scores > own + slack).sum(1)
    tied = (scores >= own - slack).sum(1) - better
    return ((1 - better.double()) / tied).clamp(0, 1)


def linkage_scores(matcher: Matcher, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of `left` (N, *encoding) with their partners in `right`, and with another image's encoding.

    Both (N,). The third, (N,), says which rows of `right` the other images are; drawn with a fixed seed.
    """
    scores = matcher.scores(left.flatten(1).double(), right.flatten(1).double())
    count = len(scores)
    shift = torch.randint(1, count, (count,), generator=torch.Generator().manual_seed(_SEED))
    others = (torch.arange(count) + shift) % count
    return scores.diagonal(), scores.gather(1, others[:, None]).squeeze(1), others


def _likelihood_ratios(left: Tensor, right: Tensor) -> list[Scores]:
    """log p(x, y of one image) / p(x) p(y), both jointly Gaussian with the moments of these pairs; by ridge.

    In canonical coordinates u, v (Hotelling 1936) it is a sum over their correlations r of
    (r u v - r^2 (u^2 + v^2) / 2) / (1 - r^2), up to a constant.
    """
    x, y = _Directions(left), _Directions(right)
    return [_ratio(x.whitened(ridge), y.whitened(ridge), left, right) for ridge in _RIDGES]


def _ratio(x: Whitened, y: Whitened, left: Tensor, right: Tensor) -> Scores:
    first, correlations, second = torch.linalg.svd(
        x(left).T @ y(right) / (len(left) - 1), full_matrices=False
    )
    r = correlations.clamp(max=_CLOSEST)
    cross, own = r / (1 - r**2), r**2 / (1 - r**2) / 2

    def scores(queries: Tensor, candidates: Tensor) -> Tensor:
        u, v = x(queries) @ first, y(candidates) @ second.T
        return (u * cross) @ v.T - (u**2 @ own)[:, None] - v**2 @ own

    return scores


class _Directions:
    """The principal directions of rows (N, d), at most `_MOST_DIRECTIONS`."""

    def __init__(self, rows: Tensor) -> None:
        self.mean = rows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
        kept = min(_MOST_DIRECTIONS, len(rows) - 1)
        self.values, self.vectors = values[-kept:].clamp(min=0), vectors[:, -kept:]

    def whitened(self, ridge: float) -> Whitened:
        """A map to coordinates of variance about 1; `ridge` as in `_RIDGES`."""
        floor = ridge * self.values.mean() or 1.0
        directions = self.vectors * (self.values + floor).rsqrt()
        return lambda rows: (rows - self.mean) @ directions
