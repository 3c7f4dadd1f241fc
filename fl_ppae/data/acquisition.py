"""How hospitals acquire images differently: stain, brightness, contrast and focus."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

_IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

# Lowest and highest value of each number drawn for a hospital: three stain strengths, six spills from one
# colour into another, brightness, contrast, gamma, blur.
_RANGES = np.array(
    [(0.75, 1.35)] * 3 + [(-0.12, 0.12)] * 6 + [(-0.08, 0.08), (0.8, 1.2), (0.8, 1.25), (0.0, 0.8)]
)
_SEED = 0xACC


@dataclass(frozen=True)
class AcquisitionShift:
    """One hospital's scanner and laboratory: the same for all its images, whatever they show.

    Attributes:
        stain: (3, 3), mixes the optical densities of red, green and blue; drawn with 0.75 to 1.35 on the
            diagonal and -0.12 to 0.12 off it. Images of one channel have no stain.
        brightness: added, in units of the full range; drawn from -0.08 to 0.08.
        contrast: factor about mid-grey; drawn from 0.8 to 1.2.
        gamma: exponent; drawn from 0.8 to 1.25.
        blur: standard deviation of a Gaussian, in pixels; drawn from 0 to 0.8.
    """

    stain: Matrix = _IDENTITY
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [0, 1] as this hospital would have taken them: same shape, in [0, 1].

        Each image is shifted independently of the others.
        """
        if self == NO_SHIFT:
            return images
        if images.shape[1] == 3 and self.stain != _IDENTITY:
            density = -torch.log(images.clamp(min=1 / 255))
            mixed = torch.einsum("ij,njhw->nihw", images.new_tensor(self.stain), density)
            images = torch.exp(-mixed).clamp(0, 1)
        if self.blur > 0:
            images = _blur(images, self.blur)
        images = images**self.gamma
        return ((images - 0.5) * self.contrast + 0.5 + self.brightness).clamp(0, 1)


NO_SHIFT = AcquisitionShift()


def hospital_shift(hospital: int, num_hospitals: int, seed: int) -> AcquisitionShift:
    """The shift of `hospital` (0 to num_hospitals - 1) under `seed` (-1 counts as 0).

    Each number's range is cut into `num_hospitals` equal parts, and each hospital draws from a different
    part (a Latin hypercube), so that even a few hospitals cover the whole range.
    """
    rng = np.random.default_rng([_SEED, max(seed, 0), num_hospitals])
    parts = rng.permuted(np.tile(np.arange(num_hospitals), (len(_RANGES), 1)), axis=1)
    place = (parts + rng.random(parts.shape)) / num_hospitals
    low, high = _RANGES.T
    drawn = (low + place[:, hospital] * (high - low)).tolist()
    red, green, blue, rg, rb, gr, gb, br, bg, brightness, contrast, gamma, blur = drawn
    stain = ((red, rg, rb), (gr, green, gb), (br, bg, blue))
    return AcquisitionShift(stain, brightness, contrast, gamma, blur)


def _blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of every channel, rows then columns, mirrored at the edges."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    channels = images.shape[1]
    weights = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    rows = functional.conv2d(padded, weights, groups=channels)
    return functional.conv2d(rows, weights.transpose(2, 3), groups=channels)
