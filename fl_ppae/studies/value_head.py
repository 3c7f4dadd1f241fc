"""The head that one-step rounds train on fixed codes, computed for all hospitals at once.

As in a run with `trains = "head"`, `sample-rate = 1` and joint or own noise: clipped gradient sums of all
records, the noise of all hospitals, and the server's optimiser. Messages, masks and rounding are left out; a
study needs hundreds of such runs. `tests/studies/test_value_head.py` compares it with a hospital's own code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from strategies.server_optimiser import ServerAdam

Array = NDArray[np.float32]


def train_head(
    codes: Tensor,
    labels: Tensor,
    classes: int,
    rounds: int,
    learning_rate: float,
    max_grad_norm: float,
    noise_std: float,
    seed: int,
) -> Mapping[str, Array]:
    """`weight` (K, d) and `bias` (K,) of the head, from 0, after `rounds` steps on all codes (N, d).

    Args:
        labels: (N,) int64.
        noise_std: of the sum of all hospitals' noise, 0 for none.
    """
    generator = torch.Generator().manual_seed(seed)
    head = {"weight": np.zeros((classes, codes.shape[1]), np.float32), "bias": np.zeros(classes, np.float32)}
    optimiser = ServerAdam(learning_rate)
    for _ in range(rounds):
        sums = clipped_sums(codes, labels, head, max_grad_norm)
        noised = {
            name: (total + noise_std * torch.randn(total.shape, generator=generator)) / len(codes)
            for name, total in sums.items()
        }
        head = optimiser.step(head, {name: mean.numpy() for name, mean in noised.items()})
    return head


def clipped_sums(
    codes: Tensor, labels: Tensor, head: Mapping[str, Array], max_grad_norm: float
) -> dict[str, Tensor]:
    """The sum of the records' gradients of cross-entropy in `weight` and `bias`, each clipped together."""
    residuals = scores_of(codes, head).softmax(1) - F.one_hot(labels, len(head["bias"]))
    norms = residuals.norm(dim=1) * (codes.square().sum(1) + 1).sqrt()
    residuals = residuals * (max_grad_norm / norms.clamp_min(1e-12)).clamp(max=1)[:, None]
    return {"weight": residuals.T @ codes, "bias": residuals.sum(0)}


def scores_of(codes: Tensor, head: Mapping[str, Array]) -> Tensor:
    """Class scores (N, K)."""
    return F.linear(codes, torch.from_numpy(head["weight"]), torch.from_numpy(head["bias"]))


def summed_noise(noise_multiplier: float, max_grad_norm: float, hospitals: int, honest: int) -> float:
    """The standard deviation of what all `hospitals` add together.

    Args:
        noise_multiplier: for one epsilon's worth of noise, which `honest` of them make up; 1 with own noise.
    """
    return noise_multiplier * max_grad_norm * math.sqrt(hospitals / honest)
