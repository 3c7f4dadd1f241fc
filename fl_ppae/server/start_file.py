"""A file of weights to start from: safetensors, read without trust, checked against the run's network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fl_ppae.errors import UserError, printable
from fl_ppae.files import write_atomically
from fl_ppae.message_arrays import MAX_WEIGHT
from fl_ppae.models.objectives import LocalModel
from fl_ppae.privacy.scopes import ENCODER, PARTNER

START_FILE = "start.safetensors"  # in the directory of a run that did not start at random
_HEAD = f"{PARTNER}."


def load_start(path: Path, model: LocalModel) -> bool:
    """Load the encoder in `path` into `model`, and its partner if it has one that fits.

    Arrays are named as in a state dict of `LocalModel`, such as `encoder.0.weight`; a file of an encoder
    alone, such as the `encoder.safetensors` of a run, may leave `encoder.` out.

    Returns:
        whether there was a partner that fits: a head for other classes does not.

    Raises:
        UserError: the file can't be read, or its encoder is not one of this run.
    """
    where = f"start = {printable(str(path))}"
    try:
        found = load(path.read_bytes())
    except OSError as problem:
        raise UserError(f"{where}: {problem.strerror or 'can not be read'}") from None
    except SafetensorError:
        raise UserError(f"{where} is not a safetensors file") from None
    if not any(name.startswith((f"{ENCODER}.", _HEAD)) for name in found):
        found = {f"{ENCODER}.{name}": value for name, value in found.items()}
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = {name: shape for name, shape in own.items() if not name.startswith(_HEAD)}
    _check_names(where, wanted, {name for name in found if not name.startswith(_HEAD)})
    for name, shape in wanted.items():
        _check(where, name, found[name], shape)
    head = {name: shape for name, shape in own.items() if name.startswith(_HEAD)}
    fits = all(name in found and tuple(found[name].shape) == shape for name, shape in head.items())
    if fits:
        for name, shape in head.items():
            _check(where, name, found[name], shape)
    taken = {**wanted, **(head if fits else {})}
    model.load_state_dict({**model.state_dict(), **{name: found[name].float() for name in taken}})
    return fits


def write_start(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the state of a `LocalModel` as a file to start from."""
    write_atomically(path, save({name: value.detach().contiguous() for name, value in state.items()}))


def _check_names(where: str, wanted: Mapping[str, tuple[int, ...]], found: set[str]) -> None:
    for problem, names in (("lacks", wanted.keys() - found), ("has also", found - wanted.keys())):
        if names:
            raise UserError(
                f"{where} is not of this run's encoder: it {problem} {printable(sorted(names)[0])}; "
                f"this run's arrays are {', '.join(sorted(wanted))}"
            )


def _check(where: str, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise UserError(f"{where}: {name} has the shape {tuple(value.shape)}, but this run's has {shape}")
    if not value.is_floating_point():
        raise UserError(f"{where}: {name} has numbers of type {str(value.dtype).removeprefix('torch.')}")
    if not bool(torch.isfinite(value).all()) or float(value.abs().max()) > MAX_WEIGHT:
        raise UserError(f"{where}: {name} has values that are not finite or above {MAX_WEIGHT:g}")
