"""Reads the arrays that a run left; one line names a file that is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fl_ppae.errors import UserError


def read_array(path: Path) -> np.ndarray:
    """The array in an .npy file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):
        raise _unreadable(path, "an .npy file") from None
    if not isinstance(array, np.ndarray):  # an archive of several
        raise _unreadable(path, "an .npy file")
    return array


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name in alphabetical order: the library gives them in any order.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return dict(sorted(load(path.read_bytes()).items()))  # `load_file` refuses a path that is not UTF-8
    except (SafetensorError, OSError):
        raise _unreadable(path, "a safetensors file") from None


def _unreadable(path: Path, what: str) -> UserError:
    wrong = "cut short, or not" if path.is_file() else "missing, or not"
    return UserError(f"{path} is {wrong} {what}")
