"""Networks for encodings: ResNet18 (arXiv:1512.03385) with GroupNorm (arXiv:1803.08494), and a small MLP."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from torch import nn

from fl_ppae.errors import UserError
from fl_ppae.models.autoencoders import ImageShape, Shape
from fl_ppae.models.seeding import seeded
from fl_ppae.protection import COMMON_HEAD

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

NAMES = ("lr", "mlp", "resnet18")  # of the classifiers that a server trains
CELLS = 49  # a vector of 49k numbers is viewed as k feature maps of 7x7
GROUPS = 32
_MLP_WIDTH = 128


def check_fit(classifier: str, encoding_shape: Shape) -> None:
    """Check that `classifier`, one of `NAMES` or the common head, fits encodings of `encoding_shape`.

    Raises:
        UserError: it can't; names the nearest encoding size that fits.
    """
    if classifier == "resnet18":
        as_image_shape(encoding_shape)
    elif classifier not in (*NAMES, COMMON_HEAD):
        raise UserError(f"classifier = {classifier!r} is unknown; valid: {', '.join((*NAMES, COMMON_HEAD))}")


def as_image_shape(encoding_shape: Shape) -> ImageShape:
    """The (C, H, W) in which ResNet18 views an encoding: its own, or (k, 7, 7) for a vector of 49k numbers.

    Raises:
        UserError: a vector of another size, or a shape that is neither of these.
    """
    if len(encoding_shape) == 3:
        channels, height, width = encoding_shape
        return channels, height, width
    if len(encoding_shape) != 1:
        raise UserError(f"classifier = 'resnet18' takes (C, H, W) or (k,), not encodings of {encoding_shape}")
    (size,) = encoding_shape
    if size % CELLS:
        below, above = size // CELLS * CELLS, (size // CELLS + 1) * CELLS
        nearest = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"encoding-size = {size} does not fit classifier = 'resnet18': a vector must be a multiple "
            f"of {CELLS}, such as {nearest}"
        )
    return size // CELLS, CELLS // 7, 7


def mlp(encoding_shape: Shape, num_classes: int, seed: int) -> nn.Module:
    """Two hidden layers, for small codes: (N, *encoding_shape) to class scores (N, num_classes)."""
    with seeded(seed):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(encoding_shape), _MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(_MLP_WIDTH, _MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(_MLP_WIDTH, num_classes),
        )


def resnet18(in_channels: int, size: int, num_classes: int, seed: int) -> ResNet:
    """ResNet18 for (N, in_channels, size, size) to class scores (N, num_classes), drawn from `seed`.

    For up to 16 pixels the stem is a 3x3 convolution without pooling, so that the four stages still have
    pixels to work on; above that, it is the original 7x7 convolution of stride 2 with pooling (13 times as
    fast on 28x28).
    """
    # Takes seconds to import, and no hospital needs it.
    from torchvision.models.resnet import resnet18 as torchvision_resnet18

    with seeded(seed):
        network: ResNet = torchvision_resnet18(num_classes=num_classes, norm_layer=_group_norm)
        width: Any = network.conv1.out_channels
        if size <= 16:
            network.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
            network.maxpool = nn.Identity()
        else:
            network.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # per-sample gradients need unmodified inputs
    return network


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)
