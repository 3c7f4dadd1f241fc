"""What the networks share: shapes, sizes, and layers without parameters that map every image alone."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

Shape = tuple[int, ...]
ImageShape = tuple[int, int, int]

_CELLS = 8  # the largest height and width of the feature maps that an image is halved to


def halvings(image: ImageShape) -> int:
    """How often an image (C, H, W) is halved: until it is at most 8 pixels high and wide, but at least twice.

    28 pixels become 7, 32, 64 and 128 become 8, and 224 become 7.
    """
    return max(2, (ceil(max(image[1:]) / _CELLS) - 1).bit_length())


def halved(image: ImageShape, times: int) -> tuple[int, int]:
    """Height and width of an image (C, H, W) halved so many times, rounded up."""
    return ceil(image[1] / 2**times), ceil(image[2] / 2**times)


class Centred(nn.Module):
    """Map pixels from [0, 1] to `scale` times [-0.5, 0.5].

    Adam moves every weight by about the same step, so the inputs of a wide layer must be small, while
    those of a 3x3 convolution may be large: centring pixels and scaling them by 4 halves the loss that
    `conv` reaches in five epochs of BloodMNIST.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Images of any shape."""
        return self.scale * (images - 0.5)


class Shuffled(nn.Module):
    """Merge each four feature maps (N, 4c, h, w) into one twice the size, cropped to (N, c, height, width).

    Like `nn.PixelShuffle(2)`, but its backward pass works on an empty batch, which fails there (torch 2.15).
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, maps: Tensor) -> Tensor:
        """(N, 4c, h, w) to (N, c, height, width)."""
        n, c, h, w = maps.shape
        cells = maps.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        return cells.reshape(n, c // 4, 2 * h, 2 * w)[..., : self.height, : self.width]
