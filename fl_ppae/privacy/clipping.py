"""Clip each record's gradient, sum, add noise: the mathematics of DP-SGD (arXiv:1607.00133, Algorithm 1).

Guarantee: adding or removing one record moves `clipped_sum` by at most `max_grad_norm` in joint L2
norm over all tensors. Noise of standard deviation `noise_multiplier * max_grad_norm` on it is then
the Gaussian mechanism that the ledger accounts. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Gradients are clipped this far below the bound, so that float32 rounding can't carry one over it.
CLIP_MARGIN = 1e-5


def per_sample_norms(grads: Sequence[Tensor]) -> Tensor:
    """Joint L2 norm of each record's gradient.

    Args:
        grads: one tensor (N, *shape) per parameter.

    Returns:
        (N,), float32.
    """
    squares = [grad.flatten(1).float().square().sum(dim=1) for grad in grads]
    return torch.stack(squares).sum(dim=0).sqrt()


class ClippedSum(NamedTuple):
    """`total`: one tensor of the parameter's shape each. `norms`: (N,), before clipping, un-noised."""

    total: list[Tensor]
    norms: Tensor


def clipped_sum(grads: Sequence[Tensor], max_grad_norm: float) -> ClippedSum:
    """Sum of the records' gradients, each scaled down to a joint L2 norm of at most `max_grad_norm`.

    | record's gradient | what it adds |
    |---|---|
    | norm <= max_grad_norm | itself (less the margin of 1e-5) |
    | norm > max_grad_norm | its direction, at max_grad_norm |
    | not finite | nothing |
    | no records (N = 0) | zeros |

    Args:
        grads: one tensor (N, *shape) per parameter.
        max_grad_norm: > 0.

    """
    norms = per_sample_norms(grads)
    finite = norms.isfinite()
    factors = max_grad_norm / (norms.clamp(min=max_grad_norm) * (1 + CLIP_MARGIN))
    if not bool(finite.all()):
        factors = factors.where(finite, 0.0)
        grads = [torch.nan_to_num(grad, nan=0.0, posinf=0.0, neginf=0.0) for grad in grads]
    return ClippedSum([torch.tensordot(factors, grad.float(), dims=1) for grad in grads], norms)


def gaussian_noise(shapes: Sequence[torch.Size], std: float, rng: np.random.Generator) -> list[Tensor]:
    """Independent normal noise, mean 0, of the given shapes; float32, from `rng` alone."""
    return [torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32)) * std for shape in shapes]
