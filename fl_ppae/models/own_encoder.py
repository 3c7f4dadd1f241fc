"""An encoder that a user brings: `encoder = "package.module:build"`, see docs/own_encoder.md.

Whoever runs the process trusts this code: nothing here protects against it. What is checked is that the
network fits the run, and whether one record's gradient can be isolated from the others by construction.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor, nn

from fl_ppae.errors import UserError
from fl_ppae.models.autoencoders import Autoencoder, decoder_of
from fl_ppae.models.isolation import check_isolated
from fl_ppae.models.layers import ImageShape, Shape
from fl_ppae.models.seeding import seeded
from fl_ppae.privacy.alone import Alone
from fl_ppae.privacy.per_sample import PerSampleGradients

Build = Callable[[ImageShape, int], object]
MOST_WEIGHTS = 2**24  # in an encoder: 64 MiB in each message
_CLOSE = 1e-3  # relative: float32 sums in another order


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """A user's encoder with its decoder.

    Attributes:
        shape: of one encoding.
        problem: why one record's gradient can't be isolated, naming the module; empty if it can.
    """

    autoencoder: Autoencoder
    shape: Shape
    problem: str


def own_network(name: str, encoding_size: int, image: ImageShape, seed: int) -> OwnNetwork:
    """The untrained network of the key `encoder`, weights drawn from `seed`; imports and calls `name`.

    Raises:
        UserError: there is no such function, or what it returns doesn't fit docs/own_encoder.md.
    """
    drawn = _drawn(name, encoding_size, image, seed)
    return OwnNetwork(copy.deepcopy(drawn.autoencoder), drawn.shape, drawn.problem)


@lru_cache(maxsize=8)  # as the project's own networks
def _drawn(name: str, encoding_size: int, image: ImageShape, seed: int) -> OwnNetwork:
    build = _imported(name)
    encoder, decoder = _built(build, name, encoding_size, image, seed)
    again = _built(build, name, encoding_size, image, seed)[0].state_dict()
    if any(not torch.equal(value, again[key]) for key, value in encoder.state_dict().items()):
        raise _wrong(name, "two builds with one seed differ; draw weights by torch's own generator alone")
    images = torch.rand(2, *image, generator=torch.Generator().manual_seed(0))
    encodings = _passed(encoder, images, name)
    shape = tuple(encodings.shape[1:])
    if len(shape) not in (1, 3) or len(encodings) != 2 or not encodings.is_floating_point():
        raise _wrong(
            name,
            f"two images became {tuple(encodings.shape)} of {encodings.dtype}; an encoding is (k,) or "
            "(k, h, w) floating-point numbers",
        )
    if encoding_size not in (0, prod(shape)):
        raise _wrong(name, f"an encoding has {prod(shape)} numbers, but encoding-size = {encoding_size}")
    if decoder is None:
        with seeded(seed):
            decoder = decoder_of(image, shape)
    elif _passed(decoder, encodings.detach(), name).shape != images.shape:
        raise _wrong(name, f"the decoder does not return images of {tuple(images.shape[1:])}")
    encoder, in_encoder = isolated(encoder, images, f"{name}, encoder")
    decoder, in_decoder = isolated(decoder, encodings.detach(), f"{name}, decoder")
    return OwnNetwork(Autoencoder(encoder, decoder), shape, in_encoder or in_decoder)


def fingerprint(autoencoder: Autoencoder, image: ImageShape) -> str:
    """A digest of the weights and of what they make of one image: code that changes changes it."""
    rows = torch.rand(1, *image, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encodings = autoencoder.encoder(rows)
        parts = [encodings, autoencoder.decoder(encodings), *autoencoder.state_dict().values()]
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{tuple(part.shape)}".encode() + part.numpy().tobytes())
    return found.hexdigest()


def isolated(network: nn.Module, rows: Tensor, name: str) -> tuple[nn.Module, str]:
    """The network in a form that acts on each record alone, or as it is, and why it can't be isolated.

    A network of known layers stays as it is; any other becomes `Alone`. Its trial on two `rows` is no proof
    of anything: it finds what `vmap` refuses, and a network that is another one on single records.
    """
    try:
        check_isolated(network)
        trial = copy.deepcopy(network)
        gradients = PerSampleGradients(trial, bfloat16=False)
        trial(rows).sum().backward()
        gradients.take()
        return network, ""
    except TypeError as unknown:
        reason = str(unknown)
    alone = Alone(network, name)
    try:
        check_isolated(alone)
        found = alone(rows).detach()
        alone.gradients(rows, torch.ones_like(found))
        alone(1 - rows)
        again = alone(rows).detach()
    except (TypeError, RuntimeError, ValueError) as refused:
        return network, f"{reason}; on single records: {_first_line(refused)}"
    if not torch.equal(found, again):
        return network, f"{reason}; on the same records it gives other results after others"
    whole = network(rows).detach()
    if not torch.allclose(found, whole, rtol=_CLOSE, atol=_CLOSE * float(whole.abs().max())):
        return network, f"{reason}; on single records it gives other results than on two together"
    return alone, ""


def _imported(name: str) -> Build:
    module, _, function = name.partition(":")
    try:
        build = getattr(importlib.import_module(module), function, None)
    except ImportError as problem:
        raise _wrong(
            name, f"{problem}; its package must be installed, or its folder be on PYTHONPATH, on every node"
        ) from None
    if not callable(build):
        raise _wrong(name, f"{module} has no function {function}")
    found: Build = build
    return found


def _built(
    build: Build, name: str, encoding_size: int, image: ImageShape, seed: int
) -> tuple[nn.Module, nn.Module | None]:
    with seeded(seed):
        made = build(image, encoding_size)
    encoder, decoder = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(encoder, nn.Module) or not isinstance(decoder, nn.Module | None):
        raise _wrong(
            name, f"{type(made).__name__} is neither an nn.Module nor a pair of them, encoder and decoder"
        )
    for part in (encoder, *([] if decoder is None else [decoder])):
        _check_weights(part, name)
    if sum(weight.numel() for weight in encoder.parameters()) > MOST_WEIGHTS:
        raise _wrong(name, f"an encoder may have at most {MOST_WEIGHTS:,} weights")
    return encoder, decoder


def _check_weights(network: nn.Module, name: str) -> None:
    """Only what a message can carry and a step can move."""
    if buffers := [key for key, _ in network.named_buffers()]:
        raise _wrong(
            name, f"buffer {buffers[0]}: only weights are sent and averaged; use GroupNorm, not BatchNorm"
        )
    names = [key for key, _ in network.named_parameters(remove_duplicate=False)]
    if not names or len(names) != len(list(network.parameters())):
        raise _wrong(name, "no weights, or a weight with two names")
    for key, weight in network.named_parameters():
        if weight.dtype != torch.float32 or not weight.requires_grad or not bool(weight.isfinite().all()):
            raise _wrong(name, f"weight {key} must be finite float32 and learn (requires_grad)")


def _passed(network: nn.Module, rows: Tensor, name: str) -> Tensor:
    try:
        outputs = network(rows)
    except RuntimeError as problem:  # torch's, for shapes that don't fit
        raise _wrong(name, f"it fails on rows of {tuple(rows.shape[1:])}: {_first_line(problem)}") from None
    if not isinstance(outputs, Tensor):
        raise _wrong(name, f"it returns {type(outputs).__name__}, not a tensor")
    return outputs


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _wrong(name: str, what: str) -> UserError:
    return UserError(f"encoder = {name!r}: {what}")
