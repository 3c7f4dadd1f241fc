"""Encodings of images, computed on the device that the encoder is on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_ppae.data.pieces import images_at_once
from fl_ppae.data.records import Positions, Records, to_float
from fl_ppae.hardware import CPU
from fl_ppae.models.codes import quantised

Array = NDArray[Any]
Images = Array | Tensor | Records
"""uint8 (N, H, W, C), float (N, C, H, W) in [0, 1], or records that are read when they are needed."""


_BATCH = 1024  # images encoded at once


def images_to_tensor(images: Array | Tensor) -> Tensor:
    """uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1]; a float tensor unchanged."""
    if isinstance(images, Tensor):
        return images
    return to_float(images).contiguous()


@torch.inference_mode()
def encode(encoder: nn.Module, images: Images, *, bits: int = 0) -> NDArray[np.float32]:
    """The encodings (N, *encoding), float32, of images.

    With `bits`, each number is rounded to so many, as `codes.quantised` does. An array may be memory-mapped,
    and records on disk: only up to 1,024 images are read at a time.
    """
    training, device = encoder.training, _device(encoder)
    encoder.eval()
    try:
        parts = [encoder(part.to(device)).float().cpu().numpy() for part in image_batches(images)]
    finally:
        encoder.train(training)
    return quantised(np.concatenate(parts), bits)


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return CPU if first is None else first.device


def images_at(images: Images, rows: Positions) -> Tensor:
    """The images at these positions as float32 (N, C, H, W) in [0, 1]."""
    if isinstance(images, np.ndarray | Tensor):
        return images_to_tensor(images[rows])
    return images.images(rows).contiguous()


def image_batches(images: Images) -> Iterator[Tensor]:
    """The images in order as float32 (N, C, H, W) in [0, 1], up to 1,024 at a time."""
    batch = images_at_once(_BATCH, *images_at(images, slice(0, 1)).shape[2:])
    return (images_at(images, slice(start, start + batch)) for start in range(0, len(images), batch))
