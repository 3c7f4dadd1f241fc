"""Log-odds of class scores: the order of probabilities where float32 rounds them to 0 and 1.

A softmax in float32 is exactly 1 from a lead of about 17 on, and a cross-entropy exactly 0, so confident
records would all share one rank. Their log-odds differ at any confidence.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def log_odds(scores: Tensor) -> Tensor:
    """log(p / (1 - p)) of each class, (N, K) float64; p is the softmax of scores (N, K), K at least 2."""
    exact = scores.double()
    own = torch.eye(exact.shape[1], dtype=torch.bool, device=exact.device)
    others = exact[:, None, :].masked_fill(own, -torch.inf)
    return exact - others.logsumexp(2)


def cross_entropies(scores: Tensor, labels: Tensor) -> Tensor:
    """-log p of the true class, (N,) float64, in nats, for class scores (N, K) and labels (N,) int64."""
    return F.softplus(-log_odds(scores).gather(1, labels[:, None]).squeeze(1))
