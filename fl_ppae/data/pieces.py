"""Arrays that are too large for memory, a piece at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_BYTES = 2**24
_PIXELS = 32 * 32


def spans(rows: np.ndarray) -> Iterator[slice]:
    """Slices that cover the rows (N, ...) in order, each of about 16 MB, at least one row."""
    each = max(1, _BYTES * len(rows) // max(1, rows.nbytes))
    return (slice(start, start + each) for start in range(0, len(rows), each))


def pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows (N, ...) in order, about 16 MB at once, at least one row."""
    return (rows[span] for span in spans(rows))


def images_at_once(usual: int, height: int, width: int) -> int:
    """How many images are worked on at once: `usual` of up to 32 x 32 pixels, fewer of larger ones, so that
    they take as much memory; at least one.
    """
    return max(1, usual * _PIXELS // max(_PIXELS, height * width))


def new_file(folder: Path) -> Path:
    """An empty `.npy` file in `folder`, with a name that no other has."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".npy", delete=False) as file:
        return Path(file.name)


def taken(rows: np.ndarray, positions: np.ndarray, folder: Path) -> np.ndarray:
    """The rows at `positions`, copied into a new file in `folder` and mapped."""
    shape = (len(positions), *rows.shape[1:])
    chosen: np.ndarray = np.lib.format.open_memmap(new_file(folder), "w+", rows.dtype, shape)
    for span in spans(chosen):
        chosen[span] = rows[positions[span]]
    return chosen
