"""A small residual network (arXiv:1512.03385) with GroupNorm (arXiv:1803.08494): image to code to scores."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.models.layers import Centred, ImageShape, halvings

CODE_SIZE = 16
_WIDTHS = (32, 64, 128)  # of the stages; each halves the image
_GROUP_CHANNELS = 8
# Codes start near 0, so an ordinary head would learn slowly: 0.64 instead of 0.81 after 250 steps of 64.
_HEAD_WEIGHTS = 2.5


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; (N, in, H, W) to (N, out, H / stride, W / stride).

    Whatever is added has been normalised, so that no weights within the bound of messages overflow.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.first_norm = _norm(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = _norm(channels)
        nn.init.zeros_(self.second_norm.weight)  # every block starts as its shortcut
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), _norm(channels))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Each image alone."""
        found = F.relu(self.first_norm(self.first(images)))
        return F.relu(self.second_norm(self.second(found)) + self.shortcut(images))


def residual_encoder(image_shape: ImageShape, size: int) -> nn.Sequential:
    """Images (N, C, H, W) in [0, 1] to codes (N, size) in [-1, 1]; 309,000 parameters for up to 32 pixels.

    Larger images are halved more often first. H and W may differ from those that it was trained on, if they
    are halved as often; C may not.
    """
    stem: list[nn.Module] = []
    for channels in (image_shape[0], *(halvings(image_shape) - 2) * (_WIDTHS[0],)):
        convolution = nn.Conv2d(channels, _WIDTHS[0], 3, stride=2, padding=1, bias=False)
        stem += [convolution, _norm(_WIDTHS[0]), nn.ReLU()]
    return nn.Sequential(
        Centred(scale=4.0),
        *stem,
        Block(_WIDTHS[0], _WIDTHS[0], 1),
        Block(_WIDTHS[0], _WIDTHS[1], 2),
        Block(_WIDTHS[1], _WIDTHS[2], 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(_WIDTHS[2], size),
        nn.Tanh(),
    )


def residual_head(size: int, num_classes: int) -> nn.Linear:
    """Codes (N, size) to class scores (N, num_classes)."""
    head = nn.Linear(size, num_classes)
    nn.init.uniform_(head.weight, -_HEAD_WEIGHTS, _HEAD_WEIGHTS)
    return head


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // _GROUP_CHANNELS, channels)
