"""Clip each record's gradient, sum, and add noise: the mathematics of DP-SGD (arXiv:1607.00133, Algorithm 1).

Guarantee: adding or removing one record moves `clipped_sum` by at most `max_grad_norm` in joint L2
norm over all tensors. Noise of standard deviation `noise_multiplier * max_grad_norm` on it is then
the Gaussian mechanism that the ledger accounts. Norms, factors, products and sums are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_ppae.privacy.per_sample import Dense, Gradients

# Gradients are clipped slightly below the bound, so that float32 rounding can't push one above it.
CLIP_MARGIN = 1e-5


def per_sample_norms(grads: Sequence[Tensor | Gradients]) -> Tensor:
    """Joint L2 norm of each record's gradient.

    Args:
        grads: one per parameter, a tensor (N, *shape) or as returned by `privacy.per_sample`.

    Returns:
        (N,), float32.
    """
    squares = [grad.squared_norms() for grad in _gradients(grads)]
    return torch.stack(squares).sum(dim=0).sqrt()


class ClippedSum(NamedTuple):
    """`total`: one tensor per parameter, of its shape. `norms`: (N,), before clipping, without noise."""

    total: list[Tensor]
    norms: Tensor


def clipped_sum(grads: Sequence[Tensor | Gradients], max_grad_norm: float) -> ClippedSum:
    """Sum of the records' gradients, each scaled down to a joint L2 norm of at most `max_grad_norm`.

    | record's gradient | its contribution |
    |---|---|
    | norm <= max_grad_norm | itself, less a margin of 1e-5 |
    | norm > max_grad_norm | its direction, at max_grad_norm |
    | not finite | nothing |
    | no records (N = 0) | zeros |

    Args:
        grads: one per parameter, a tensor (N, *shape) or as returned by `privacy.per_sample`.
        max_grad_norm: > 0.
    """
    every = _gradients(grads)
    norms = per_sample_norms(every)
    finite = norms.isfinite()
    factors = max_grad_norm / (norms.clamp(min=max_grad_norm) * (1 + CLIP_MARGIN))
    if not bool(finite.all()):
        factors = factors.where(finite, 0.0)
        every = [grad.without(finite) for grad in every]
    return ClippedSum([grad.weighted_sum(factors) for grad in every], norms)


def _gradients(grads: Sequence[Tensor | Gradients]) -> list[Gradients]:
    return [Dense(grad) if isinstance(grad, Tensor) else grad for grad in grads]


def gaussian_noise(shapes: Sequence[torch.Size], std: float, rng: np.random.Generator) -> list[Tensor]:
    """Independent normal noise of mean 0 in the given shapes, float32, drawn from `rng` alone."""
    return [torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32)) * std for shape in shapes]
