"""A run's checkpoint: what the server needs to go on after a round, in one file that is replaced as a whole.

The server draws no random numbers that last from round to round, and each classifier is trained anew from a
fixed seed, so neither is in it. The file says how long its parts are and carries a checksum: what a crash or
another program did to it is noticed. Whoever can write it can forge it, as any file of the run directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fl_ppae.errors import UserError
from fl_ppae.files import write_atomically
from fl_ppae.paths import MISSING, file_problem

FILE = "checkpoint.safetensors"
_FORMAT, _TEXT = "1", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The server after `round`, the last complete one; 0: before the first.

    Attributes:
        run: what the hospitals' ledgers call the run.
        arrays: by name.
        state: everything else, as JSON holds it.
    """

    run: str
    round: int
    arrays: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


def write_checkpoint(run_directory: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint; on return it is on disk."""
    text = json.dumps({"run": checkpoint.run, "round": checkpoint.round, "state": checkpoint.state})
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    arrays[_TEXT] = np.frombuffer(text.encode(), np.uint8)  # a header may be too short for it
    content = save(arrays, {"format": _FORMAT, "sha256": _checksum(arrays)})
    write_atomically(run_directory / FILE, content)


def read_checkpoint(run_directory: Path) -> Checkpoint:
    """The run's checkpoint.

    Raises:
        UserError: there is none, or it is damaged or another version's.
    """
    path = run_directory / FILE
    if problem := file_problem(path):
        none = problem == MISSING
        reason = "it has no checkpoint" if none else f"its checkpoint {path} can't be read ({problem})"
        raise UserError(f"the run {run_directory} can't go on: {reason}; start it again")
    try:
        with safe_open(path, "numpy") as file:
            written = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if written["format"] != _FORMAT:
            raise UserError(f"{path} is of another version of fl-ppae; resume the run with that version")
        if written["sha256"] != _checksum(arrays):
            raise ValueError("its checksum differs")
        body = json.loads(arrays.pop(_TEXT).tobytes())
        return Checkpoint(str(body["run"]), int(body["round"]), arrays, dict(body["state"]))
    except UserError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path} is damaged; restore it from a backup, or start the run again") from None


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.shape} {array.dtype}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
