"""Images that are nearly the same: copies that were compressed, brightened or resized in between."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from fl_ppae.data.records import to_float
from fl_ppae.steps import count, step

CELLS = 8  # an image is compared by CELLS x CELLS mean grey values
LEVELS = 2.0
"""Two images are nearly the same if these means, less their own mean, differ by at most so much (root mean
square, white is 255). JPEG at quality 75 changes BloodMNIST's by 0.3, at quality 30 by 1.7 (medians of 500
images); its nearest different images are 4.4 apart, MNIST's 2.4."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, which JPEG keeps best
_ROWS = 1024


def nearest(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest in `others` (M, H, W, C) to each image (N, H, W, C) uint8: its position, and how far it is.

    Returns:
        (N,) int64 and (N,) float32 in units of `LEVELS`. An image with next to no contrast is infinitely far
        from all: blank images are alike, whatever they show.
    """
    mine, theirs = _thumbnails(images), _thumbnails(others)
    flat = ~_has_contrast(theirs)
    positions, distances = [], []
    step("looking for images that are nearly the same")
    for rows in mine.split(_ROWS):
        apart = torch.cdist(rows, theirs) / CELLS
        apart[:, flat] = torch.inf
        apart[~_has_contrast(rows)] = torch.inf
        found = apart.min(dim=1)
        positions.append(found.indices)
        distances.append(found.values)
        count(sum(map(len, positions)), len(mine))
    return torch.cat(positions).numpy(), torch.cat(distances).numpy()


def _thumbnails(images: np.ndarray) -> torch.Tensor:
    """(N, CELLS * CELLS) float32: mean grey values, less their own mean, white is 255."""
    pieces = []
    for start in range(0, len(images), _ROWS):
        colours = to_float(images[start : start + _ROWS]) * 255
        weights = colours.new_tensor(
            _LUMA if colours.shape[1] == 3 else [1 / colours.shape[1]] * colours.shape[1]
        )
        grey = torch.einsum("nchw,c->nhw", colours, weights)[:, None]
        pieces.append(functional.adaptive_avg_pool2d(grey, CELLS).flatten(1))
    means = torch.cat(pieces)
    return means - means.mean(dim=1, keepdim=True)


def _has_contrast(thumbnails: torch.Tensor) -> torch.Tensor:
    return thumbnails.square().mean(dim=1).sqrt() > 2 * LEVELS
