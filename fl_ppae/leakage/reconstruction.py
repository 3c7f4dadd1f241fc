"""A probe of how much of the image an encoder keeps."""

from __future__ import annotations

import copy
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.hardware import limited_threads
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired
from fl_ppae.models.encoding import Array, _device, images_to_tensor

_BATCH, _RATE = 64, 4e-3  # not tuned
_MOST_NUMBERS = 100_000_000  # in the images of a probe: 42,000 of 28 x 28 pixels in colour, 664 of 224 x 224


def probe_reconstruction_loss(
    encodings: Array, images: Array, decoder: nn.Module, seed: int, threads: int, steps: int = 300
) -> float:
    """How much of the image an encoder keeps: the test error of a decoder fitted to its encodings.

    No decoder leaves a hospital, so a copy of `decoder` is fitted from its present weights on 4/5 of
    the pairs, drawn by `seed`, and tested on the other 1/5; of large images only as many as fit into 400 MB
    are drawn. Pass the initial weights of the hospitals'
    decoders: an encoder that learned with them is easier to decode from there than from other weights, and
    after so few steps that shows.

    encodings (N, *encoding) float, images (N, H, W, C) uint8, N at least 2. Returns the mean squared error
    per pixel, pixels in [0, 1].

    Raises:
        Unmeasurable: an encoding is not finite, there are fewer than two pairs, or not as many of both.
    """
    check_finite(encodings=encodings)
    check_paired(2, encodings=encodings, images=images)
    with limited_threads(threads):
        generator = torch.Generator().manual_seed(seed)
        most = max(2, _MOST_NUMBERS // prod(images.shape[1:]))
        order = torch.randperm(len(images), generator=generator)[:most]
        tested = max(1, len(order) // 5)
        fit, test = order[tested:], order[:tested]
        device = _device(decoder)

        def pairs(rows: Tensor) -> tuple[Tensor, Tensor]:
            inputs = torch.from_numpy(np.array(encodings[rows.numpy()], np.float32))
            return inputs.to(device), images_to_tensor(images[rows.numpy()]).to(device)

        probe = fit_decoder(decoder, *pairs(fit), steps, generator)
        with torch.inference_mode():
            inputs, targets = pairs(test)
            return F.mse_loss(probe(inputs), targets).item()


def fit_decoder(
    decoder: nn.Module, encodings: Tensor, images: Tensor, steps: int, generator: torch.Generator
) -> nn.Module:
    """A copy of `decoder`, fitted from its present weights to pairs; in evaluation mode.

    Adam on the mean squared error, its rate falling to 0; encodings (N, *encoding), images (N, C, H, W).
    """
    fitted = copy.deepcopy(decoder).train()
    optimiser = torch.optim.Adam(fitted.parameters(), lr=_RATE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        rows = torch.randint(len(images), (_BATCH,), generator=generator)
        optimiser.zero_grad()
        F.mse_loss(fitted(encodings[rows]), images[rows]).backward()
        optimiser.step()
    return fitted.eval()
