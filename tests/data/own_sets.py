"""Small data sets as users have them (folder, manifest, DICOM files, `.npz`), and ways to break them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fl_ppae.data.cache import Dataset
from fl_ppae.data.example import write_dicom, write_folder, write_manifest
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.own_data import look_at, own_dataset
from fl_ppae.declared import Declared

CLASSES = ("blue", "green", "red")
HOSPITALS = ("Nord", "Ost")


def small_arrays(channels: int = 3, train: int = 24, side: int = 8) -> Arrays:
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, count in zip(SPLITS, (train, 6, 9), strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % len(CLASSES)
    return arrays


def npz(root: Path, arrays: Arrays) -> Path:
    path = root / "own.npz"
    np.savez(path, **arrays)
    return path


WRITERS: dict[str, Callable[[Path, Arrays], Path]] = {
    "npz": npz,
    "folder": lambda root, arrays: write_folder(arrays, CLASSES, root / "own"),
    "manifest": lambda root, arrays: write_manifest(arrays, CLASSES, root / "own", HOSPITALS),
    "dicom": lambda root, arrays: write_dicom(arrays, CLASSES, root / "own"),
}


def opened(path: Path, warned: list[str] | None = None, **declared: Any) -> Dataset:
    """The data set at `path`, read as a run reads it."""
    return own_dataset(
        look_at(path, Declared(**declared)), False, (warned if warned is not None else []).append
    )


def first_image(root: Path) -> Path:
    """One of the training images of a folder or manifest."""
    return next(path for path in sorted(root.rglob("*0000[0-9].*")) if "train" in str(path))


def rewritten(manifest: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> Path:
    """The manifest with its rows, the first of them its columns, changed."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = change(list(csv.reader(file)))
    with manifest.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return manifest


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> None:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
