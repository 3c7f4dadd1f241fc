"""A user's own `.npz`: images of any size, of 8 or 16 bits, or of any numbers with a declared range."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from fl_ppae.data.archive import member_header, read_members
from fl_ppae.data.intensity import fitted, range_of, to_8_bits, with_channels
from fl_ppae.data.npz import KEYS, LABEL_KEYS, SPLITS, Arrays, carve_val, check_labels, layout
from fl_ppae.data.pieces import new_file
from fl_ppae.data.spec import DatasetSpec
from fl_ppae.declared import MAX_CHANNELS, MAX_SIDE, Declared
from fl_ppae.errors import UserError
from fl_ppae.steps import count, step

_AT_ONCE = 256  # images converted together
_CLASSES = 10_000  # more different labels than this are no classes


def describe_npz(path: Path, asked: Declared) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(C, H, W) of the images as a run would see them, and the names of the classes.

    Raises:
        UserError: the arrays are no images and labels, or the labels don't count from 0 without a gap.
    """
    with tempfile.TemporaryDirectory() as scratch:
        stored = read_members(path, LABEL_KEYS, Path(scratch))
        names = layout(path, stored)
        labels = [name for name in names.values() if name in LABEL_KEYS]
        every = [_distinct(stored[name], f"{path}: {name}") for name in labels]
    shape = asked.shape or _shape(path, names["train_images"], asked)
    if asked.class_names is not None:
        return shape, asked.class_names
    found = np.unique(np.concatenate(every))
    if found[0] != 0:
        raise UserError(f"{path}: its lowest label is {found[0]}; labels count from 0")
    if found[-1] >= _CLASSES:
        raise UserError(f"{path}: it holds label {found[-1]}; expected classes, counted from 0")
    if len(found) <= found[-1]:
        gap = int(np.setdiff1d(np.arange(found[-1]), found)[0])
        raise UserError(
            f"{path}: no record has label {gap}, though labels go up to {found[-1]}; count them without "
            "gaps, or set class-names"
        )
    if len(found) < 2:
        raise UserError(f"{path}: its only class is 0; at least 2 are needed")
    return shape, tuple(map(str, found))


def read_own_npz(path: Path, spec: DatasetSpec, asked: Declared, scratch: Path) -> Arrays:
    """The six arrays of a data set that `describe_npz` described, images converted piece by piece.

    Raises:
        UserError: one line naming the array, what is wrong and what would be right.
    """
    stored = read_members(path, KEYS, scratch)
    names = layout(path, stored)
    arrays: Arrays = {}
    for split in SPLITS:
        key = f"{split}_images"
        if key in names:
            images = _as_asked(stored[names[key]], spec, asked, f"{path}: {names[key]}", scratch)
            labels = names[f"{split}_labels"]
            arrays[key] = images
            arrays[f"{split}_labels"] = check_labels(stored[labels], spec, f"{path}: {labels}", len(images))
    return arrays if "val_images" in arrays else carve_val(arrays, str(path), scratch)


def _distinct(labels: object, where: str) -> np.ndarray:
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or not labels.size:
        raise UserError(f"{where} holds no integers; expected one label for each image")
    return np.unique(labels).astype(np.int64)


def _shape(path: Path, name: str, asked: Declared) -> tuple[int, int, int]:
    stored, _ = member_header(path, name)
    channels = stored[3] if len(stored) == 4 else 1
    if (
        len(stored) not in (3, 4)
        or channels > MAX_CHANNELS
        or not all(0 < side <= MAX_SIDE for side in stored[1:])
    ):
        raise UserError(
            f"{path}: {name} has shape {stored}; expected (N, H, W) or (N, H, W, C), at most {MAX_CHANNELS} "
            f"channels of {MAX_SIDE} pixels a side"
        )
    height, width = (asked.resize, asked.resize) if asked.resize else stored[1:3]
    return channels, height, width


def _as_asked(images: object, spec: DatasetSpec, asked: Declared, where: str, scratch: Path) -> np.ndarray:
    """`images` as (N, H, W, C) uint8 of the right shape, in a new file in `scratch` if they change."""
    if not isinstance(images, np.ndarray) or images.ndim not in (3, 4) or not len(images):
        raise UserError(f"{where} holds no images; expected (N, H, W) or (N, H, W, C)")
    images = images[..., None] if images.ndim == 3 else images
    black_and_white = asked.intensity_range or range_of(images.dtype)
    if images.dtype.kind not in "iuf" or black_and_white is None:
        remedy = "set intensity-range" if images.dtype.kind in "iuf" else "expected numbers"
        raise UserError(f"{where} is {images.dtype}, of no known range of intensities; {remedy}")
    channels, height, width = spec.image_shape
    if not asked.resize and images.shape[1:3] != (height, width):
        raise UserError(
            f"{where} has images of {images.shape[1]} x {images.shape[2]} pixels, not {height} x {width}; "
            f"resize = {max(height, width)} fits them"
        )
    if images.shape[3] != channels and (asked.shape is None or {images.shape[3], channels} != {1, 3}):
        raise UserError(f"{where} has {images.shape[3]} channels, not {channels}")
    if (
        images.dtype == np.uint8
        and black_and_white == (0, 255)
        and images.shape[1:] == (height, width, channels)
    ):
        return images
    step(f"converting {len(images):,} images")
    converted = open_memmap(new_file(scratch), "w+", np.uint8, (len(images), height, width, channels))
    for start in range(0, len(images), _AT_ONCE):
        try:
            pixels = to_8_bits(images[start : start + _AT_ONCE], black_and_white)
        except ValueError as error:
            raise UserError(f"{where} holds {error}") from None
        for place, image in enumerate(pixels, start):
            changed = with_channels(image, channels)
            converted[place] = fitted(changed, asked.resize) if asked.resize else changed
        count(min(start + _AT_ONCE, len(images)), len(images))
    return converted
