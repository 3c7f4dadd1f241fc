"""Small .npz files in MedMNIST's keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fl_ppae.data.npz import Arrays


def medmnist_arrays(n: int = 12, channels: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28, channels), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 8, (n, 1), dtype=np.uint8)
    return arrays


def write(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path
