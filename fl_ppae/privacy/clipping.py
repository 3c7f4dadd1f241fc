"""Clip each record's gradient and sum: the sensitivity of DP-SGD (arXiv:1607.00133, Algorithm 1).

Guarantee: adding or removing one record moves `clipped_sum` by at most `max_grad_norm` in joint L2 norm over
all tensors. This holds for the computed bits and for arbitrary gradients: the sensitivity includes rounding.
It assumes that a record's gradient has the same bits in both batches (`hospital.physical_batches`). With
noise of standard deviation `noise_multiplier * max_grad_norm` (`privacy.noise`), it is the Gaussian mechanism
that the ledger accounts.

Norms are accurate to a few float32 roundings; products and sums are float64. `CLIP_MARGIN` covers the error
of both, for sums of up to `MOST_RECORDS` records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fl_ppae.privacy.per_sample import Dense

# Gradients are clipped this far below the bound. A norm's relative error is at most NORM_BLOCK / 2 + 3
# float32 roundings, 4e-6; that of two float64 sums of R records at the bound is 2 R**2 2**-53, below 3e-6.
CLIP_MARGIN = 1e-5
# Gradients with a larger norm add nothing; their float32 squares would overflow.
LARGEST_NORM = 1e18
SMALLEST_CLIP = 1e-6  # far above the norm that is lost when float32 squares underflow
MOST_RECORDS = 100_000  # in one sum


class Rows(Protocol):
    """One parameter's gradients of N records, such as those of `privacy.per_sample`."""

    def squared_norms(self) -> Tensor:
        """(N,) float64."""
        ...

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Sum over records of their factor, (N,), times their gradient; float64, of the parameter's shape."""
        ...

    def without(self, finite: Tensor) -> Rows:
        """The same with zeros for records that are not `finite` (N,)."""
        ...


def per_sample_norms(grads: Sequence[Tensor | Rows]) -> Tensor:
    """Joint L2 norm of each record's gradient.

    Args:
        grads: one per parameter, a tensor (N, *shape) or `Rows`.

    Returns:
        (N,), float64, with a relative error below `CLIP_MARGIN` and an absolute error below 1e-15, from
        squares that underflow in float32.
    """
    squares = [grad.squared_norms() for grad in _gradients(grads)]
    return torch.stack(squares).sum(dim=0).sqrt()


class ClippedSum(NamedTuple):
    """`total`: float64 tensors of the parameters' shapes. `norms`: (N,), before clipping, without noise."""

    total: list[Tensor]
    norms: Tensor


def clipped_sum(grads: Sequence[Tensor | Rows], max_grad_norm: float) -> ClippedSum:
    """Sum of the records' gradients, each scaled down to a joint L2 norm of at most `max_grad_norm`.

    One too large to be scaled is left out, even if it is finite:

    | record's gradient | its contribution |
    |---|---|
    | norm <= max_grad_norm | itself, less a margin of 1e-5 |
    | norm > max_grad_norm | its direction, at max_grad_norm |
    | norm > LARGEST_NORM, or not finite | nothing |
    | no records (N = 0) | zeros |

    Args:
        grads: one per parameter, a tensor (N, *shape) or `Rows`.
        max_grad_norm: at least 1e-6.

    Raises:
        ValueError: max_grad_norm is below 1e-6, or there are more than `MOST_RECORDS` records.
    """
    every = _gradients(grads)
    norms = per_sample_norms(every)
    if len(norms) > MOST_RECORDS:
        raise ValueError(f"{len(norms)} records in a sum of at most {MOST_RECORDS}")
    if not max_grad_norm >= SMALLEST_CLIP:
        raise ValueError(f"max_grad_norm {max_grad_norm:g} is below {SMALLEST_CLIP:g}")
    counted = norms <= LARGEST_NORM  # false for NaN
    factors = max_grad_norm / (norms.clamp(min=max_grad_norm) * (1 + CLIP_MARGIN))
    if not bool(counted.all()):
        factors = factors.where(counted, 0.0)
        every = [grad.without(counted) for grad in every]
    return ClippedSum([grad.weighted_sum(factors) for grad in every], norms)


def _gradients(grads: Sequence[Tensor | Rows]) -> list[Rows]:
    return [Dense(grad) if isinstance(grad, Tensor) else grad for grad in grads]
