"""The convolutional attacker: it corrects a first reconstruction by what else the encoding shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.leakage.ssim import ssim
from fl_ppae.models.seeding import seeded

_WIDTH = 64
_BATCH = 64
_RATE = 2e-3
_VECTOR_CHANNELS = 16


Loss = Callable[[Tensor, Tensor], Tensor]
"""From images made and images wanted, (N, C, H, W) each, to one number."""

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "L1": F.l1_loss,
        "MSE": F.mse_loss,
        "SSIM": lambda made, wanted: 1 - ssim(made, wanted).mean(),
    }
)


class Base(Protocol):
    """A first reconstruction, which the network corrects; (N, C, H, W), not clipped."""

    @property
    def out_of_fold(self) -> Tensor:
        """Of the pairs it was fitted to, as good as those of unseen encodings."""
        ...

    def raw(self, encodings: Tensor) -> Tensor:
        """Of encodings (N, *encoding)."""
        ...


def fit_network(
    encodings: Tensor, images: Tensor, base: Base, steps: int, seed: int, loss: str = "L1"
) -> Callable[[Tensor], Tensor]:
    """Fit the network to pairs and return its decoder: encodings (N, *encoding) to images in [0, 1].

    It learns from `base.out_of_fold`: on the pairs it was fitted to, the base is better than it will be on
    unseen encodings. `loss`: one of `LOSSES`.
    """
    out_of_fold, measure = base.out_of_fold, LOSSES[loss]
    shape = tuple(encodings.shape[1:])
    mean, scale = encodings.mean(0), encodings.std(0)
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)
    inputs = (encodings - mean) / scale
    with seeded(seed):
        network = Corrector(shape, tuple(images.shape[1:])).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=max(steps, 2), pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (_BATCH,), generator=generator)
        optimiser.zero_grad()
        measure(network(inputs[rows], out_of_fold[rows]), images[rows]).backward()
        optimiser.step()
        schedule.step()
    network.eval()

    @torch.inference_mode()
    def decode(seen: Tensor) -> Tensor:
        parts = [network((part - mean) / scale, base.raw(part)).clamp(0, 1) for part in seen.split(_BATCH)]
        return torch.cat(parts).clone()

    return decode


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv3(width, width), _conv3(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        return F.elu(maps + self.second(F.elu(self.first(maps))))


class Corrector(nn.Module):
    """Improves a first reconstruction (N, C, H, W) by its encoding; at first it changes nothing.

    It works on feature maps of a quarter of the image's height and width.
    """

    def __init__(self, encoding: tuple[int, ...], image: tuple[int, ...]) -> None:
        super().__init__()
        self.image = image
        channels, self.height, self.width = image
        quarter = ceil(self.height / 4), ceil(self.width / 4)
        self.pad = (0, 4 * quarter[1] - self.width, 0, 4 * quarter[0] - self.height)
        self.view, seen = _as_maps(encoding, quarter)
        self.enter = _conv3(seen + 16 * channels, _WIDTH)
        self.middle = nn.Sequential(_Residual(_WIDTH), _Residual(_WIDTH))
        self.grow = _conv3(_WIDTH, 2 * _WIDTH)
        self.leave = _conv3(_WIDTH // 2, 4 * channels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, encodings: Tensor, first: Tensor) -> Tensor:
        """Images (N, C, H, W), not clipped, of encodings (N, *encoding) and first reconstructions."""
        shown = F.pixel_unshuffle(F.pad(4 * (first - 0.5), self.pad), 4)
        maps = F.elu(self.enter(torch.cat([self.view(encodings), shown], 1)))
        maps = F.elu(F.pixel_shuffle(self.grow(self.middle(maps)), 2))
        correction = F.pixel_shuffle(self.leave(maps), 2)
        return first + correction[..., : self.height, : self.width]


def _as_maps(encoding: tuple[int, ...], size: tuple[int, int]) -> tuple[nn.Module, int]:
    """Encodings as (N, c, *size), and that c: as they are, four pixels to one, or through a linear layer."""
    if encoding[1:] == size:
        return nn.Identity(), encoding[0]
    if encoding[1:] == (4 * size[0], 4 * size[1]):
        return nn.PixelUnshuffle(4), 16 * encoding[0]
    numbers = torch.Size(encoding).numel()
    cells = size[0] * size[1]
    view = nn.Sequential(
        nn.Flatten(),
        nn.Linear(numbers, _VECTOR_CHANNELS * cells),
        nn.ELU(),
        nn.Unflatten(1, (_VECTOR_CHANNELS, *size)),
    )
    return view, _VECTOR_CHANNELS


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
