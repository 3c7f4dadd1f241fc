"""Wavelet scattering, averaged over orientations: features of an image that nobody has to learn.

Two layers of Morlet wavelets and moduli (arXiv:1203.1513, section 2), two scales, eight angles. Averages
over angles keep a second-layer coefficient's relative angle. Averages over those cells of a 7 x 7 grid that
turning and mirroring map to each other keep the distance from the centre. Constants that even out the
features come from drawn images, so no record is used, neither private nor public.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ANGLES = 8
GRID = 7
SMALLEST = 14  # pixels a side of an image
FEATURES = 80  # a channel: 8 averages over angles in 10 orbits of cells
_KERNEL = 7  # pixels
_CONTRAST = 100.0  # of the logarithm that compresses features
_NORM = 3.3  # of a code; beside it, the bias of a linear head learns at a fitting rate
_DRAWN_IMAGES = 1_000
_LEAVES = 20
_SMALLEST_VARIANCE = 1e-5  # of the largest
# Intensity, red against green, both against blue.
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))


class Scattering(nn.Module):
    """Images (N, C, H, W) in [0, 1] to codes (N, 80 C) in [-1, 1], the same for all orientations.

    It has no parameters and nothing that a server could send: every party computes the same constants.

    Args:
        channels: C. Three are taken as red, green and blue.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """The codes of images of at least `SMALLEST` pixels a side."""
        centre, whitening = (part.to(images.device) for part in _constants(self.channels))
        with torch.autocast(images.device.type, enabled=False):
            evened = (_features(images.float()) - centre) @ whitening
            return (_NORM * F.normalize(evened)).clamp(-1, 1)


def drawn_images(count: int, channels: int, seed: int = 0) -> Tensor:
    """Images (N, C, 28, 28) in [0, 1] of discs that hide each other ("dead leaves"), much as in nature.

    Radii r from 1.5 to 14 pixels have a density of r^-3 (Lee, Mumford and Huang 2001,
    doi:10.1023/A:1011109015675).
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    rows, columns = torch.arange(28).view(28, 1) + 0.5, torch.arange(28) + 0.5
    images = uniform(channels, 1, 1).expand(-1, -1, 28, 28)
    for _ in range(_LEAVES):
        radius = (1.5**-2 + uniform(1, 1) * (14.0**-2 - 1.5**-2)).rsqrt()
        centre = 36 * uniform(2, 1, 1) - 4
        distance = torch.hypot(rows - centre[:, 0], columns - centre[:, 1])
        inside = (radius + 0.5 - distance).clamp(0, 1)[:, None]
        colour = (uniform(1, 1, 1) + 0.3 * (uniform(channels, 1, 1) - 0.5)).clamp(0, 1)
        images = torch.lerp(images, colour, inside)
    return images


@lru_cache(maxsize=4)
def _constants(channels: int) -> tuple[Tensor, Tensor]:
    """The mean (d,) of the features of drawn images, and the (d, d) inverse root of their covariance."""
    with torch.inference_mode():
        parts = [_features(part) for part in drawn_images(_DRAWN_IMAGES, channels).split(250)]
        found = torch.cat(parts).double()
    variances, directions = torch.linalg.eigh(torch.cov(found.T))
    smallest = _SMALLEST_VARIANCE * variances[-1]
    whitening = directions / (variances.clamp_min(0) + smallest).sqrt() @ directions.T
    return found.mean(0).float().clone(), whitening.float().clone()


def _features(images: Tensor) -> Tensor:
    """Compressed averages (N, 80 C) of scattering coefficients."""
    channels = images.shape[1]
    if channels == 3:
        images = torch.einsum("kc,nchw->nkhw", torch.tensor(_OPPONENT, device=images.device), images)
    maps = images.flatten(0, 1)[:, None]
    fine = _moduli(maps)
    coarse = _moduli(F.avg_pool2d(maps, 2))
    second = _moduli(F.avg_pool2d(fine, 2).flatten(0, 1)[:, None]).unflatten(0, (-1, ANGLES))
    angles = torch.arange(ANGLES)
    apart = (angles - angles[:, None]) % ANGLES
    apart = torch.minimum(apart, ANGLES - apart)
    relative = [second[:, apart == steps].mean(1, keepdim=True) for steps in range(ANGLES // 2 + 1)]
    parts = (maps, fine.mean(1, keepdim=True), coarse.mean(1, keepdim=True), *relative)
    averages = torch.cat([_orbit_means(part) for part in parts], 1).unflatten(0, (-1, channels)).flatten(1)
    return averages.sign() * (_CONTRAST * averages.abs()).log1p()


def _moduli(maps: Tensor) -> Tensor:
    """Maps (M, 1, H, W) to the moduli (M, 8, H, W) of their convolutions with the wavelets."""
    wavelets = _wavelets().to(maps.device)
    real, imaginary = F.conv2d(F.pad(maps, [_KERNEL // 2] * 4, "reflect"), wavelets).chunk(2, 1)
    return (real.square() + imaginary.square() + 1e-12).sqrt()


@lru_cache(maxsize=1)
def _wavelets() -> Tensor:
    """Morlet wavelets (16, 1, 7, 7): real parts at eight angles, then imaginary parts.

    Envelope of 0.8 pixels, twice as long across the wave; 3 pi / 4 radians a pixel. The mean is 0.
    """
    offsets = torch.arange(_KERNEL, dtype=torch.float64) - _KERNEL // 2
    angle = math.pi / ANGLES * torch.arange(ANGLES, dtype=torch.float64).view(-1, 1, 1)
    rows, columns = offsets.view(-1, 1), offsets
    along = columns * angle.cos() + rows * angle.sin()
    across = rows * angle.cos() - columns * angle.sin()
    envelope = torch.exp(-(along.square() + across.square() / 4) / (2 * 0.8**2))
    wave = torch.stack([(0.75 * math.pi * along).cos(), (0.75 * math.pi * along).sin()])
    mean = (wave * envelope).sum((-2, -1), keepdim=True) / envelope.sum((-2, -1), keepdim=True)
    wavelets = (wave - mean) * envelope / (4 * math.pi * 0.8**2)
    return wavelets.flatten(0, 1)[:, None].float()


def _orbit_means(maps: Tensor) -> Tensor:
    """Maps (M, k, H, W) to their means (M, 10 k) over cells that turning and mirroring map to each other."""
    return (F.adaptive_avg_pool2d(maps, GRID).flatten(2) @ _orbits().to(maps.device)).flatten(1)


@lru_cache(maxsize=1)
def _orbits() -> Tensor:
    """(49, 10): a column averages the cells of one orbit."""
    away = (torch.arange(GRID) - GRID // 2).abs()
    near, far = torch.minimum(away[:, None], away), torch.maximum(away[:, None], away)
    _, orbit = (far * GRID + near).flatten().unique(return_inverse=True)
    members = F.one_hot(orbit).float()
    return members / members.sum(0)
