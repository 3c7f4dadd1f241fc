"""The networks a run's configuration asks for: the same in every hospital and at the server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from types import MappingProxyType

from torch import nn

from fl_ppae.config import RunConfig
from fl_ppae.data.registry import DATASETS
from fl_ppae.models.autoencoders import Autoencoder, Shape, build_autoencoder, build_head, encoding_shape
from fl_ppae.models.classifiers import check_fit
from fl_ppae.privacy.encodings import check_projection


def encoding_shape_of(config: RunConfig) -> Shape:
    """Shape of one encoding in this run.

    Raises:
        UserError: the encoder does not fit the image, or the encoding not the classifier.
    """
    shape = encoding_shape(config.autoencoder, config.encoding_size, DATASETS[config.dataset].image_shape)
    check_fit(config.classifier, shape)
    return shape


def check_released(config: RunConfig, public_records: int) -> None:
    """Whether encodings can leave as the configuration asks, given the size of the server's split.

    Raises:
        UserError: as `encoding_shape_of`, or they can't be projected to projection-size.
    """
    numbers = prod(encoding_shape_of(config))
    if config.encoding_noise_epsilon:
        check_projection(config.projection_size, public_records, numbers)


def released_shape_of(config: RunConfig) -> Shape:
    """Shape of one encoding as it leaves a hospital: noised ones are projected first."""
    return (config.projection_size,) if config.encoding_noise_epsilon else encoding_shape_of(config)


def public_seed(config: RunConfig) -> int:
    """Seed of initial weights. They are public, so entropy would add nothing: -1 counts as 0."""
    return max(config.seed, 0)


def autoencoder_of(config: RunConfig) -> Autoencoder:
    """The untrained encoder and decoder that every hospital starts from."""
    image = DATASETS[config.dataset].image_shape
    return build_autoencoder(config.autoencoder, config.encoding_size, image, public_seed(config))


@lru_cache(maxsize=16)
def encoder_shapes_of(config: RunConfig) -> Mapping[str, tuple[int, ...]]:
    """Name to shape of the encoder's arrays; asked for with every message."""
    state = autoencoder_of(config).encoder.state_dict()
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in state.items()})


def partner_of(config: RunConfig, autoencoder: Autoencoder) -> nn.Module:
    """What the encoder learns with inside a hospital: the decoder, or for `objective = task` a head."""
    if config.objective == "reconstruction":
        return autoencoder.decoder
    spec = DATASETS[config.dataset]
    return build_head(encoding_shape_of(config), spec.num_classes, public_seed(config))
