"""Encodings of images, computed on the device that the encoder is on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_ppae.data.records import to_float
from fl_ppae.hardware import CPU
from fl_ppae.models.codes import quantised

Array = NDArray[Any]


def images_to_tensor(images: Array | Tensor) -> Tensor:
    """uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1]; a float tensor unchanged."""
    if isinstance(images, Tensor):
        return images
    return to_float(images).contiguous()


@torch.inference_mode()
def encode(
    encoder: nn.Module, images: Array | Tensor, batch: int = 1024, *, bits: int = 0
) -> NDArray[np.float32]:
    """The encodings (N, *encoding), float32, of uint8 (N, H, W, C) or float (N, C, H, W) images.

    With `bits`, each number is rounded to so many, as `codes.quantised` does. The array may be memory-mapped:
    only `batch` images are read at a time.
    """
    training, device = encoder.training, _device(encoder)
    encoder.eval()
    try:
        parts = [
            encoder(images_to_tensor(part).to(device)).float().cpu().numpy() for part in _parts(images, batch)
        ]
    finally:
        encoder.train(training)
    return quantised(np.concatenate(parts), bits)


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return CPU if first is None else first.device


def _parts(items: Any, batch: int) -> Iterator[Any]:
    return (items[start : start + batch] for start in range(0, len(items), batch))
