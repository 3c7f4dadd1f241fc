"""What an adversarial perturbation maximises: losses whose gradient does not fade with confidence.

The gradient of a cross-entropy in float32 vanishes where the classifier is sure: the same classifier with
scores ten times as large would look more robust. These are taken on float64 scores and don't depend on their
scale. None is the strongest on every classifier, so an attacker tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST_GAP = 1e-30


def scaled_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """(N,): cross-entropy of scores (N, K) divided by each record's gap from the highest to the median."""
    exact = scores.double()
    gap = (exact.max(1).values - exact.median(1).values).clamp(min=_LEAST_GAP).detach()
    return F.cross_entropy(exact / gap[:, None], labels, reduction="none")


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """(N,): how far the best wrong class leads the true one (Carlini & Wagner 2016, arXiv:1608.04644, f6)."""
    exact = scores.double()
    own = F.one_hot(labels, exact.shape[1]).bool()
    return exact.masked_fill(own, -torch.inf).max(1).values - exact[own]


def logits_ratio(scores: Tensor, labels: Tensor) -> Tensor:
    """(N,): the margin divided by the gap from the highest to the third score, K at least 3.

    The difference of logits ratio (Croce & Hein 2020, arXiv:2003.01690, eq. 6).
    """
    highest = scores.double().topk(3, dim=1).values
    return margin(scores, labels) / (highest[:, 0] - highest[:, 2]).clamp(min=_LEAST_GAP)


Loss = Callable[[Tensor, Tensor], Tensor]
_LOSSES = MappingProxyType({"cross-entropy": scaled_cross_entropy, "margin": margin, "DLR": logits_ratio})


def losses_for(classes: int) -> dict[str, Loss]:
    """The losses that are defined for this many classes, by name."""
    return {name: loss for name, loss in _LOSSES.items() if classes > 2 or loss is not logits_ratio}
