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
from fl_ppae.models.layers import Centred, Shuffled
from fl_ppae.models.residual import CODE_SIZE, residual_encoder, residual_head
from fl_ppae.models.seeding import seeded

Shape = tuple[int, ...]
ImageShape = tuple[int, int, int]

NAMES = ("fc", "fc-deep", "conv", "conv-image", "residual")
FC_SIZE = 784  # numbers in a vector encoding: a multiple of 49, so that ResNet18 can view it as (16, 7, 7)
CONV_CHANNELS = 16


class Autoencoder(nn.Module):
    """`decoder(encoder(images))`: (N, C, H, W) in [0, 1] to the same shape and range.

    Attributes:
        scaled: encodings have a known scale, so that a head learns from them as they are.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, scaled: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.scaled = scaled

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction, (N, C, H, W) in [0, 1]."""
        reconstruction: Tensor = self.decoder(self.encoder(images))
        return reconstruction


def encoding_shape(name: str, encoding_size: int, image_shape: ImageShape) -> Shape:
    """The shape of one encoding: (k,) for `fc`, `fc-deep` and `residual`, (k, h, w) for the others.

    `encoding_size` is the number of values in an encoding; 0 takes the architecture's default: 784, 16
    (`residual`), 16 channels of a quarter of the image's height and width (`conv`), or the image's shape
    (`conv-image`).

    Raises:
        UserError: the architecture can't produce that size; names the nearest sizes that fit.
    """
    channels, height, width = image_shape
    if name in ("fc", "fc-deep"):
        return (encoding_size or FC_SIZE,)
    if name == "residual":
        return (encoding_size or CODE_SIZE,)
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
    build = {
        "fc": _fc,
        "fc-deep": _fc_deep,
        "conv": _conv,
        "conv-image": _conv_image,
        "residual": _residual,
    }[name]
    with seeded(seed):
        return Autoencoder(*build(image_shape, shape), scaled=name == "residual")


def build_head(shape: Shape, num_classes: int, seed: int, *, scaled: bool = False) -> nn.Module:
    """The task head: encodings (N, *shape) to class scores (N, num_classes), drawn from `seed`.

    An encoding that isn't `scaled` (see `Autoencoder`) is normalised first: with it, the noised loss on
    BloodMNIST reaches 0.9 nats; without it, it stays at 1.3.
    """
    with seeded(seed):
        if scaled:
            return residual_head(prod(shape), num_classes)
        return nn.Sequential(nn.GroupNorm(1, shape[0]), nn.Flatten(), nn.Linear(prod(shape), num_classes))


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
    encoder = nn.Sequential(
        Centred(4),
        _conv3(image[0], 32, stride=2),
        nn.ELU(),
        _conv3(32, 64, stride=2),
        nn.ELU(),
        _conv3(64, encoding[0]),
    )
    return encoder, nn.Sequential(_conv3(encoding[0], 64), nn.ELU(), *_from_a_quarter(image))


def _from_a_quarter(image: ImageShape) -> list[nn.Module]:
    """Doubles 64 feature maps of a quarter of the image's height and width twice, to an image."""
    channels, height, width = image
    return [
        _conv3(64, 16 * 4),
        Shuffled(ceil(height / 2), ceil(width / 2)),
        nn.ELU(),
        _conv3(16, channels * 4),
        Shuffled(height, width),
        nn.Sigmoid(),
    ]


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


def _residual(image: ImageShape, encoding: Shape) -> tuple[nn.Module, nn.Module]:
    """The residual network to a code of k numbers in [-1, 1], and a small convolutional decoder."""
    maps = (64, ceil(image[1] / 4), ceil(image[2] / 4))
    decoder = nn.Sequential(
        nn.Linear(encoding[0], prod(maps)), nn.ELU(), nn.Unflatten(1, maps), *_from_a_quarter(image)
    )
    return residual_encoder(image, encoding[0]), decoder
