"""The autoencoders: an encoder that may leave a hospital, and a decoder or task head that never does.

Each network takes float images (N, C, H, W) in [0, 1] and can be trained with per-sample gradients:
no BatchNorm, no in-place operations, and decoders of Conv2d + sub-pixel shuffling (arXiv:1609.05158), because
Opacus' gradient sampler of ConvTranspose2d fails on the empty batches that Poisson sampling draws.
Shuffling convolves at the lower resolution, so it is also faster than Upsample + Conv2d.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from math import ceil, prod

from torch import Tensor, nn

from fl_ppae.errors import UserError
from fl_ppae.models.seeding import seeded

Shape = tuple[int, ...]
ImageShape = tuple[int, int, int]

NAMES = ("fc", "fc-deep", "conv", "conv-image")
FC_SIZE = 784  # numbers in a vector encoding: a multiple of 49, so that ResNet18 can view it as (16, 7, 7)
CONV_CHANNELS = 16


class Autoencoder(nn.Module):
    """`decoder(encoder(images))`: (N, C, H, W) in [0, 1] to the same shape and range."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction, (N, C, H, W) in [0, 1]."""
        reconstruction: Tensor = self.decoder(self.encoder(images))
        return reconstruction


def encoding_shape(name: str, encoding_size: int, image_shape: ImageShape) -> Shape:
    """The shape of one encoding: (k,) for `fc` and `fc-deep`, (k, h, w) for the others.

    `encoding_size` is the number of values in an encoding; 0 takes the architecture's default: 784, 16
    channels of a quarter of the image's height and width (`conv`), or the image's shape (`conv-image`).

    Raises:
        UserError: the architecture can't produce that size; names the nearest sizes that fit.
    """
    channels, height, width = image_shape
    if name in ("fc", "fc-deep"):
        return (encoding_size or FC_SIZE,)
    if name == "conv":
        cells = ceil(height / 4) * ceil(width / 4)
        if encoding_size % cells:
            below, above = encoding_size // cells * cells, ceil(encoding_size / cells) * cells
            nearest = f"{below} or {above}" if below else str(above)
            raise UserError(
                f"encoding-size = {encoding_size} does not fit autoencoder = 'conv' on {height}x{width} "
                f"images: it must be a multiple of {cells}, such as {nearest}"
            )
        return (encoding_size // cells or CONV_CHANNELS, ceil(height / 4), ceil(width / 4))
    if name == "conv-image":
        if encoding_size not in (0, prod(image_shape)):
            raise UserError(
                f"encoding-size = {encoding_size} does not fit autoencoder = 'conv-image' on "
                f"{channels}x{height}x{width} images: it must be 0 or {prod(image_shape)}"
            )
        return image_shape
    raise UserError(f"autoencoder = {name!r} is unknown; valid: {', '.join(NAMES)}")


def build_autoencoder(name: str, encoding_size: int, image_shape: ImageShape, seed: int) -> Autoencoder:
    """An untrained autoencoder for images of `image_shape` (C, H, W), its weights drawn from `seed`.

    Raises:
        UserError: as `encoding_shape`.
    """
    return copy.deepcopy(_drawn(name, encoding_size, image_shape, seed))


@lru_cache(maxsize=8)  # drawing weights is slower than copying them, and every message needs a network
def _drawn(name: str, encoding_size: int, image_shape: ImageShape, seed: int) -> Autoencoder:
    shape = encoding_shape(name, encoding_size, image_shape)
    build = {"fc": _fc, "fc-deep": _fc_deep, "conv": _conv, "conv-image": _conv_image}[name]
    with seeded(seed):
        return Autoencoder(*build(image_shape, shape))


def build_head(shape: Shape, num_classes: int, seed: int) -> nn.Module:
    """The task head: encodings (N, *shape) to class scores (N, num_classes), drawn from `seed`.

    Each encoding is normalised first: with it, the noised loss on BloodMNIST reaches 0.9 nats; without it,
    it stays at 1.3.
    """
    with seeded(seed):
        return nn.Sequential(nn.GroupNorm(1, shape[0]), nn.Flatten(), nn.Linear(prod(shape), num_classes))


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


def _fc(image: ImageShape, encoding: Shape) -> tuple[nn.Module, nn.Module]:
    """One hidden layer, the encoding: the paper's simple autoencoder."""
    pixels, size = prod(image), prod(encoding)
    encoder = nn.Sequential(Centred(0.25), nn.Flatten(), nn.Linear(pixels, size), nn.ELU())
    decoder = nn.Sequential(nn.Linear(size, pixels), nn.Sigmoid(), nn.Unflatten(1, image))
    return encoder, decoder


def _fc_deep(image: ImageShape, encoding: Shape, hidden: int = 512) -> tuple[nn.Module, nn.Module]:
    """One hidden layer on each side of the encoding."""
    pixels, size = prod(image), prod(encoding)
    encoder = nn.Sequential(
        Centred(0.25), nn.Flatten(), nn.Linear(pixels, hidden), nn.ELU(), nn.Linear(hidden, size), nn.ELU()
    )
    decoder = nn.Sequential(
        nn.Linear(size, hidden),
        nn.ELU(),
        nn.Linear(hidden, pixels),
        nn.Sigmoid(),
        nn.Unflatten(1, image),
    )
    return encoder, decoder


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size or, with stride 2, halves it, rounding up."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def _conv(image: ImageShape, encoding: Shape) -> tuple[nn.Module, nn.Module]:
    """Halves the image twice, to k feature maps of a quarter of its height and width."""
    channels, height, width = image
    encoder = nn.Sequential(
        Centred(4),
        _conv3(channels, 32, stride=2),
        nn.ELU(),
        _conv3(32, 64, stride=2),
        nn.ELU(),
        _conv3(64, encoding[0]),
    )
    decoder = nn.Sequential(
        _conv3(encoding[0], 64),
        nn.ELU(),
        _conv3(64, 16 * 4),
        Shuffled(ceil(height / 2), ceil(width / 2)),
        nn.ELU(),
        _conv3(16, channels * 4),
        Shuffled(height, width),
        nn.Sigmoid(),
    )
    return encoder, decoder


def _conv_image(image: ImageShape, encoding: Shape) -> tuple[nn.Module, nn.Module]:
    """An encoding of the image's shape, through feature maps of half its height and width."""
    channels, height, width = image

    def through_half() -> list[nn.Module]:
        return [
            _conv3(channels, 32, stride=2),
            nn.ELU(),
            _conv3(32, 32),
            nn.ELU(),
            _conv3(32, encoding[0] * 4),
            Shuffled(height, width),
        ]

    return nn.Sequential(Centred(4), *through_half()), nn.Sequential(*through_half(), nn.Sigmoid())
