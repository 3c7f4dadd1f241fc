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
from fl_ppae.models.layers import Centred, ImageShape, Shape, Shuffled, halved, halvings
from fl_ppae.models.residual import CODE_SIZE, residual_encoder, residual_head
from fl_ppae.models.scattering import FEATURES, SMALLEST, Scattering
from fl_ppae.models.seeding import seeded

NAMES = ("fc", "fc-deep", "conv", "conv-image", "residual")  # of encoders that learn
SCATTER = "scatter"
FC_SIZE = 784  # numbers in a vector encoding: a multiple of 49, so that ResNet18 can view it as (16, 7, 7)
CONV_CHANNELS = 16
_MOST_NUMBERS = 2**14  # in an image of a network whose weights or encodings grow with it: 128 x 128 in grey


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
    """The shape of one encoding: (k, h, w) for `conv` and `conv-image`, (k,) for the others.

    `encoding_size` is the number of values in an encoding; 0 takes the architecture's default: 784, 16
    (`residual`), 80 a channel (`scatter`), 16 channels of the image halved as `halvings` says (`conv`), or
    the image's shape (`conv-image`).

    Raises:
        UserError: the architecture can't produce that size, and the nearest sizes that fit; or it takes no
            images as large as these.
    """
    channels, height, width = image_shape
    if name in ("fc", "fc-deep", "conv-image") and prod(image_shape) > _MOST_NUMBERS:
        raise UserError(
            f"autoencoder = {name!r} takes images of at most {_MOST_NUMBERS:,} numbers, but "
            f"{channels}x{height}x{width} are {prod(image_shape):,}; use 'conv' or 'residual'"
        )
    if name in ("fc", "fc-deep"):
        return (encoding_size or FC_SIZE,)
    if name == "residual":
        return (encoding_size or CODE_SIZE,)
    if name == SCATTER:
        if encoding_size not in (0, FEATURES * channels) or min(height, width) < SMALLEST:
            raise UserError(
                f"autoencoder = 'scatter' makes {FEATURES * channels} numbers of images of at least "
                f"{SMALLEST} pixels a side: encoding-size = {encoding_size} and {height}x{width} don't fit"
            )
        return (FEATURES * channels,)
    if name == "conv":
        rows, columns = halved(image_shape, halvings(image_shape))
        cells = rows * columns
        if encoding_size % cells:
            below, above = encoding_size // cells * cells, ceil(encoding_size / cells) * cells
            nearest = f"{below} or {above}" if below else str(above)
            raise UserError(
                f"encoding-size = {encoding_size} does not fit autoencoder = 'conv' on {height}x{width} "
                f"images: it must be a multiple of {cells}, such as {nearest}"
            )
        return (encoding_size // cells or CONV_CHANNELS, rows, columns)
    if name == "conv-image":
        if encoding_size not in (0, prod(image_shape)):
            raise UserError(
                f"encoding-size = {encoding_size} does not fit autoencoder = 'conv-image' on "
                f"{channels}x{height}x{width} images: it must be 0 or {prod(image_shape)}"
            )
        return image_shape
    raise UserError(f"autoencoder = {name!r} is unknown; valid: {', '.join((*NAMES, SCATTER))}")


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
        SCATTER: _scatter,
    }[name]
    with seeded(seed):
        return Autoencoder(*build(image_shape, shape), scaled=name in ("residual", SCATTER))


def build_head(shape: Shape, num_classes: int, seed: int, *, scaled: bool = False) -> nn.Module:
    """The task head: encodings (N, *shape) to class scores (N, num_classes), drawn from `seed`.

    An encoding that isn't `scaled` (see `Autoencoder`) is normalised first: with it, the noised loss on
    BloodMNIST reaches 0.9 nats; without it, it stays at 1.3.
    """
    with seeded(seed):
        if scaled:
            return residual_head(prod(shape), num_classes)
        return nn.Sequential(nn.GroupNorm(1, shape[0]), nn.Flatten(), nn.Linear(prod(shape), num_classes))


def decoder_of(image: ImageShape, shape: Shape) -> nn.Module:
    """A small convolutional decoder of encodings (N, k) or (N, k, h, w) to images (N, C, H, W)."""
    if len(shape) == 1:
        return _from_vector(image, shape)
    small = halved(image, halvings(image))
    return nn.Sequential(nn.AdaptiveAvgPool2d(small), _conv3(shape[0], 64), nn.ELU(), *_doubled(image))


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
    """Halves the image to k feature maps of at most 8 x 8 pixels: two stages for 28 pixels, five for 224."""
    encoder: list[nn.Module] = [Centred(4), _conv3(image[0], 32, stride=2), nn.ELU()]
    for stage in range(1, halvings(image)):
        encoder += [_conv3(32 if stage == 1 else 64, 64, stride=2), nn.ELU()]
    encoder.append(_conv3(64, encoding[0]))  # drawn before the decoder
    return nn.Sequential(*encoder), nn.Sequential(_conv3(encoding[0], 64), nn.ELU(), *_doubled(image))


def _doubled(image: ImageShape) -> list[nn.Module]:
    """Doubles 64 feature maps of the image's `halved` height and width until they are an image."""
    layers: list[nn.Module] = []
    for stage in range(halvings(image) - 1, 0, -1):
        layers += [_conv3(16 if layers else 64, 16 * 4), Shuffled(*halved(image, stage)), nn.ELU()]
    return [*layers, _conv3(16, image[0] * 4), Shuffled(*image[1:]), nn.Sigmoid()]


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
    return residual_encoder(image, encoding[0]), _from_vector(image, encoding)


def _scatter(image: ImageShape, encoding: Shape) -> tuple[nn.Module, nn.Module]:
    """Fixed features of an image, and the same decoder."""
    return Scattering(image[0]), _from_vector(image, encoding)


def _from_vector(image: ImageShape, encoding: Shape) -> nn.Module:
    maps = (64, *halved(image, halvings(image)))
    return nn.Sequential(
        nn.Linear(encoding[0], prod(maps)), nn.ELU(), nn.Unflatten(1, maps), *_doubled(image)
    )
