"""An encoder that you write yourself: `encoder = "own_encoder:build"`, with this folder on PYTHONPATH.

    PYTHONPATH=examples fl-ppae run bloodmnist_iid -c encoder=own_encoder:build

It normalises each channel of an image by the image's own mean and spread, and has weights that belong to no
layer, so fl-ppae knows neither. It is applied to one image at a time, which gives it a formal guarantee.
"""

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """A strided convolution whose maps are scaled by the module's weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.gate = nn.Parameter(torch.ones(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, outputs, H / 2, W / 2), rounded up."""
        maps = self.convolution(maps) * self.gate[:, None, None]
        return nn.functional.silu(maps)


class Encoder(nn.Module):
    """Images (N, C, H, W) in [0, 1] to `size` numbers each, (N, size)."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.normal = nn.InstanceNorm2d(channels)
        self.stages = nn.Sequential(Gated(channels, 16), Gated(16, 32))
        self.code = nn.Linear(32, size)

    def forward(self, images: Tensor) -> Tensor:
        """(N, size)."""
        return self.code(self.stages(self.normal(images)).mean((2, 3)))


def build(image_shape: tuple[int, int, int], encoding_size: int) -> nn.Module:
    """The untrained encoder; its weights come from torch's generator, which fl-ppae seeds."""
    return Encoder(image_shape[0], encoding_size or 32)
