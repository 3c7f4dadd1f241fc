"""Random changes of images that keep their label, and the eight orientations of an image."""

from __future__ import annotations

import torch
from torch import Tensor

ORIENTATIONS = 8
_LARGEST_SHIFT = 1  # pixels, in each direction
_LARGEST_GAIN = 0.1  # brightness is multiplied by 1 plus or minus this


def augmented(images: Tensor, generator: torch.Generator, *, any_way_up: bool) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each shifted and brightened at random, and in a random orientation if
    they may be `any_way_up`.

    A shift repeats the pixels of the edge. Draws are made on the CPU, the same for every device.

    Raises:
        ValueError: images that are not square can't be turned.
    """
    count, channels, height, width = images.shape
    if any_way_up and height != width:
        raise ValueError(f"{height} x {width} images can't be turned by 90 degrees")

    def drawn(largest: int) -> Tensor:
        """(N, 1, 1) integers from -largest to largest."""
        return torch.randint(-largest, largest + 1, (count, 1, 1), generator=generator)

    rows = (torch.arange(height).view(1, -1, 1) + drawn(_LARGEST_SHIFT)).clamp(0, height - 1)
    columns = (torch.arange(width).view(1, 1, -1) + drawn(_LARGEST_SHIFT)).clamp(0, width - 1)
    if any_way_up:
        upside_down, mirrored, turned = (torch.rand(3, count, 1, 1, generator=generator) < 0.5).unbind()
        rows = torch.where(upside_down, height - 1 - rows, rows)
        columns = torch.where(mirrored, width - 1 - columns, columns)
        rows, columns = torch.where(turned, columns.mT, rows), torch.where(turned, rows.mT, columns)
    pixels = (rows * width + columns).view(count, 1, -1).expand(-1, channels, -1).to(images.device)
    gains = 1 + _LARGEST_GAIN * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    moved = images.flatten(2).gather(2, pixels).view_as(images)
    return (moved * gains.to(images.device)).clamp(0, 1)


def orientations(images: Tensor) -> Tensor:
    """Square images (N, C, H, W) in their eight orientations: (8, N, C, H, W), the first as they are."""
    turned = [images.rot90(quarters, (2, 3)) for quarters in range(4)]
    return torch.stack([*turned, *(image.flip(3) for image in turned)])
