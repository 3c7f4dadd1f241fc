"""Trained networks, kept on disk for later runs and audits.

They are in a folder of the home folder, named by a digest of everything that they depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fl_ppae.files import home, write_atomically

State = dict[str, Tensor]


def kept(folder: str, kind: str, depends_on: Mapping[str, Any], make: Callable[[], State]) -> State:
    """What `make` returns, from `folder` if it was made before. JSON must be able to hold `depends_on`."""
    identity = {"torch": torch.__version__, **depends_on}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    path = home() / folder / f"{kind}-{name}.safetensors"
    try:
        return load(path.read_bytes())
    except (FileNotFoundError, SafetensorError):
        state = {key: value.detach().contiguous() for key, value in make().items()}
        write_atomically(path, save(state))
        return state


def digest(*arrays: np.ndarray) -> str:
    """A digest of the arrays' shapes, types and values."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
