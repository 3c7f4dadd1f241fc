"""The networks that a run's configuration specifies, the same in every hospital and at the server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod

from torch import nn

from fl_ppae.config import RunConfig
from fl_ppae.data.registry import spec_of
from fl_ppae.errors import UserError
from fl_ppae.models.autoencoders import Autoencoder, Shape, build_autoencoder, encoding_shape
from fl_ppae.models.classifiers import check_fit
from fl_ppae.models.codes import EncodingFormat
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.models.own_encoder import OwnNetwork, fingerprint, own_network
from fl_ppae.privacy.encodings import check_projection
from fl_ppae.privacy.scopes import MODULES, SCOPES
from fl_ppae.protection import COMMON_HEAD, shares_head


def encoding_shape_of(config: RunConfig) -> Shape:
    """Shape of one encoding in this run.

    Raises:
        UserError: the encoder does not fit the image, or the encoding does not fit the classifier; or the
            user's own encoder can't be trained under this scope.
    """
    if config.encoder and (problem := _own(config).problem) and SCOPES[config.dp_scope].noised:
        raise UserError(
            f'encoder = {config.encoder!r} can only run with dp-scope = "none", not "{config.dp_scope}": '
            f"{problem}"
        )
    shape = _shape(config)
    spec = spec_of(config)
    if config.views > 1 and not spec.any_way_up:
        raise UserError(
            f"views = {config.views} averages over orientations, but images of {spec.title} have a right way "
            "up; use 1"
        )
    if config.views > 1 and spec.height != spec.width:
        raise UserError(f"views = {config.views} turns images, which must be square; use 1")
    check_fit(config.classifier, shape)
    return shape


def check_released(config: RunConfig, public_records: int) -> None:
    """Check that the size of the server's split is enough for what the server does with it.

    Raises:
        UserError: as `encoding_shape_of`; or there are fewer public records than the classifier has classes;
            or encodings can't be projected to projection-size.
    """
    numbers = prod(encoding_shape_of(config))
    classes = spec_of(config).num_classes
    trains = config.shares_updates and config.classifier != COMMON_HEAD
    if trains and 0 <= config.public_records < classes:
        raise UserError(
            f"public-records = {config.public_records}: with share = {config.share!r} the server trains its "
            f'classifier on them and needs one of each class, {classes}; or use share = "encodings" or '
            'classifier = "head"'
        )
    if config.encoding_noise_epsilon:
        check_projection(config.projection_size, public_records, numbers)


def released_format_of(config: RunConfig) -> EncodingFormat:
    """How one encoding leaves a hospital; noised encodings are projected first."""
    projected = config.encoding_noise_epsilon
    shape = (config.projection_size,) if projected else encoding_shape_of(config)
    return EncodingFormat(shape, config.encoding_bits)


def public_seed(config: RunConfig) -> int:
    """Seed of the initial weights. They are public, so entropy would add nothing: -1 counts as 0."""
    return max(config.seed, 0)


def autoencoder_of(config: RunConfig) -> Autoencoder:
    """The untrained encoder and decoder that every hospital starts from."""
    if config.encoder:
        return _own(config).autoencoder
    image = spec_of(config).image_shape
    return build_autoencoder(config.autoencoder, config.encoding_size, image, public_seed(config))


def local_model_of(config: RunConfig) -> LocalModel:
    """The untrained encoder and partner that every hospital starts from."""
    autoencoder, spec = autoencoder_of(config), spec_of(config)
    build_partner = OBJECTIVES[config.objective].partner
    partner = build_partner(autoencoder, _shape(config), spec.num_classes, public_seed(config))
    return LocalModel(autoencoder.encoder, partner)


def own_identity(config: RunConfig) -> tuple[str, ...]:
    """What tells networks of a user's own encoder apart although its code may change; empty without one."""
    return (
        (config.encoder, fingerprint(_own(config).autoencoder, spec_of(config).image_shape))
        if config.encoder
        else ()
    )


def _own(config: RunConfig) -> OwnNetwork:
    return own_network(config.encoder, config.encoding_size, spec_of(config).image_shape, public_seed(config))


def _shape(config: RunConfig) -> Shape:
    if config.encoder:
        return _own(config).shape
    return encoding_shape(config.autoencoder, config.encoding_size, spec_of(config).image_shape)


def shared_of(config: RunConfig, model: LocalModel) -> nn.Module:
    """The module of a hospital's model whose update may leave the hospital.

    It is the encoder, in some runs with the head: see `protection.shares_head`.
    """
    return model if shares_head(config) else model.encoder


@lru_cache(maxsize=8)  # every message is checked against them
def shared_shapes_of(config: RunConfig) -> Mapping[str, Shape]:
    """Name and shape of each array that the server sends for a round: all of `shared_of`."""
    shared = shared_of(config, local_model_of(config))
    return {name: tuple(value.shape) for name, value in shared.state_dict().items()}


@lru_cache(maxsize=8)
def update_shapes_of(config: RunConfig) -> Mapping[str, Shape]:
    """Name and shape of each array in an update: of what is shared, those that the key `trains` lets learn.

    Nothing else of a trained model may leave.
    """
    model = local_model_of(config)
    learning = {id(parameter) for parameter in model.part(MODULES, config.trains).parameters()}
    return {
        name: tuple(parameter.shape)
        for name, parameter in shared_of(config, model).named_parameters()
        if id(parameter) in learning
    }
