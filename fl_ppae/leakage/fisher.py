"""What Gaussian noise on an encoding takes from every unbiased inversion, by the Fisher information in it."""

from __future__ import annotations

import torch
from torch import Tensor

from fl_ppae.leakage.inversion import Encode
from fl_ppae.leakage.ranges import check_images

_BATCH = 256


def fisher_leakage(encode: Encode, images: Tensor, noise: float) -> Tensor:
    """dFIL of each image (N, C, H, W): the Fisher information's trace per pixel, (N,) float64, at least 0.

    An attacker who knows `encode` and sees encode(x) plus Gaussian noise of standard deviation `noise`, and
    whose reconstruction is unbiased, has a mean squared error per pixel of at least 1 / dFIL(x)
    (arXiv:2305.04146; the information is J^T J / noise^2, with the encoder's Jacobian J at x). A biased
    attacker, such as one who guesses the mean image, may have less.

    `encode`: differentiable, each image on its own, to (N, k); the cost is k backward passes.

    Raises:
        Unmeasurable: `images` are no float images in [0, 1].
    """
    check_images(images=images)
    traces = [_squared_jacobian(encode, part) for part in images.split(_BATCH)]
    return torch.cat(traces) / (noise**2 * images[0].numel())


def _squared_jacobian(encode: Encode, images: Tensor) -> Tensor:
    """The sum of squares of each image's Jacobian, (N,)."""
    inputs = images.clone().requires_grad_()
    outputs = encode(inputs).flatten(1)
    total = torch.zeros(len(images), dtype=torch.float64)
    for column in outputs.unbind(1):
        (gradient,) = torch.autograd.grad(column.sum(), inputs, retain_graph=True)
        total += gradient.double().flatten(1).square().sum(1)
    return total
