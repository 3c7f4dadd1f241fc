"""What an encoder gives and keeps: encodings, and a probe of how much of the image is in them.

Functions over arrays and modules; they compute where the module is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.devices import CPU
from fl_ppae.threads import limited_threads

Array = NDArray[Any]

# Not tuned.
PROBE_BATCH = 64
PROBE_RATE = 4e-3


def images_to_tensor(images: Array | Tensor) -> Tensor:
    """uint8 (N, H, W, C) as float (N, C, H, W) in [0, 1]; a float tensor as it is."""
    if isinstance(images, Tensor):
        return images
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div(255).contiguous()


@torch.inference_mode()
def encode(encoder: nn.Module, images: Array | Tensor, batch: int = 1024) -> NDArray[np.float32]:
    """The encodings (N, *encoding), float32, of uint8 (N, H, W, C) or float (N, C, H, W) images.

    The array may be memory-mapped: only `batch` images at a time are read.
    """
    training, device = encoder.training, _device(encoder)
    encoder.eval()
    try:
        parts = [
            encoder(images_to_tensor(part).to(device)).float().cpu().numpy() for part in _parts(images, batch)
        ]
    finally:
        encoder.train(training)
    return np.concatenate(parts)


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return CPU if first is None else first.device


def probe_reconstruction_loss(
    encodings: Array, images: Array, decoder: nn.Module, seed: int, threads: int, steps: int = 300
) -> float:
    """How much of the image an encoder keeps: the test error of a decoder fitted to its encodings.

    No decoder leaves a hospital, so a copy of `decoder` is fitted from its present weights on 4/5 of
    the pairs, drawn by `seed`, and tested on the other 1/5. Give the weights from which the hospitals'
    decoders started: an encoder that learned beside them is easier to decode from there than from
    another start, and after so few steps that shows.

    encodings (N, *encoding) float, images (N, H, W, C) uint8, N at least 2. Returns the mean squared error
    per pixel, pixels in [0, 1].
    """
    with limited_threads(threads):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images), generator=generator)
        tested = max(1, len(images) // 5)
        fit, test = order[tested:], order[:tested]
        device = _device(decoder)
        inputs = torch.from_numpy(np.array(encodings, np.float32)).to(device)
        targets = images_to_tensor(images).to(device)
        probe = copy.deepcopy(decoder).train()
        optimiser = torch.optim.Adam(probe.parameters(), lr=PROBE_RATE)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = PROBE_RATE * (1 - step / steps)
            rows = fit[torch.randint(len(fit), (PROBE_BATCH,), generator=generator)]
            optimiser.zero_grad()
            F.mse_loss(probe(inputs[rows]), targets[rows]).backward()
            optimiser.step()
        with torch.inference_mode():
            return F.mse_loss(probe.eval()(inputs[test]), targets[test]).item()


def _parts(items: Any, batch: int) -> Iterator[Any]:
    return (items[start : start + batch] for start in range(0, len(items), batch))
