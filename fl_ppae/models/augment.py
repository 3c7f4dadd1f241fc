"""Random changes of images that keep their label, and the eight orientations of an image."""

from __future__ import annotations

import torch
from torch import Tensor

ORIENTATIONS = 8
DRAWS = 6  # random numbers for one image
_LARGEST_SHIFT = 1  # pixels, in each direction
_LARGEST_GAIN = 0.1  # brightness is multiplied by 1 plus or minus this


def augmented(images: Tensor, draws: Tensor, *, any_way_up: bool) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each shifted and brightened at random, and in a random orientation if
    they may be `any_way_up`.

    `draws`: (N, DRAWS) float64 on the CPU, uniform on [0, 1). What becomes of an image depends on its own row
    alone. A shift repeats the pixels of the edge. Images that are not square are mirrored, but not turned.
    """
    count, channels, height, width = images.shape
    down, right, upside_down, mirrored, turned, gain = draws.view(count, DRAWS, 1, 1).unbind(1)

    def shifted(size: int, uniform: Tensor) -> Tensor:
        """Places in a row or column of so many pixels, (N, size), moved and kept inside."""
        shift = ((2 * _LARGEST_SHIFT + 1) * uniform).long().view(-1, 1) - _LARGEST_SHIFT
        return (torch.arange(size) + shift).clamp(0, size - 1)

    rows, columns = shifted(height, down)[:, :, None], shifted(width, right)[:, None, :]
    if any_way_up:
        rows = torch.where(upside_down < 0.5, height - 1 - rows, rows)
        columns = torch.where(mirrored < 0.5, width - 1 - columns, columns)
    if any_way_up and height == width:
        swapped = turned < 0.5
        rows, columns = torch.where(swapped, columns.mT, rows), torch.where(swapped, rows.mT, columns)
    pixels = (rows * width + columns).view(count, 1, -1).expand(-1, channels, -1).to(images.device)
    gains = (1 + _LARGEST_GAIN * (2 * gain - 1)).float().view(-1, 1, 1, 1)
    moved = images.flatten(2).gather(2, pixels).view_as(images)
    return (moved * gains.to(images.device)).clamp(0, 1)


def orientations(images: Tensor) -> Tensor:
    """Square images (N, C, H, W) in their eight orientations: (8, N, C, H, W), the first as they are."""
    turned = [images.rot90(quarters, (2, 3)) for quarters in range(4)]
    return torch.stack([*turned, *(image.flip(3) for image in turned)])
