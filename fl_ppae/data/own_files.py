"""A user's own image files read into arrays: one at a time, so that memory stays flat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from fl_ppae.data.dicom import is_dicom, read_dicom
from fl_ppae.data.intensity import fitted, to_8_bits, with_channels
from fl_ppae.data.listing import Entry, Listing
from fl_ppae.data.natural import natural
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.pictures import Picture, Unreadable, read_picture
from fl_ppae.data.pieces import new_file
from fl_ppae.declared import Declared
from fl_ppae.errors import UserError, printable
from fl_ppae.paths import FILE, kind_of
from fl_ppae.steps import count, step

NO_HOSPITAL = -1
_NAMED = 3


@dataclass(frozen=True)
class Target:
    """What every image of a data set must be: (C, H, W), and the classes in the order of their labels."""

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


@dataclass
class Problems:
    """What went wrong in reading, by file.

    Attributes:
        unreadable: the reason of each file that gives no image.
        shapes: (C, H, W) of each image of another shape than it must have.
        notes: what files say that is ignored, in words.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def lines(self, listing: Listing, asked: Declared, target: Target) -> list[str]:
        """One line for each kind of problem that forbids to go on; empty if there is none."""
        lines = []
        if len(self.unreadable) > asked.max_unreadable:
            files = len(listing.entries) + len(listing.others)
            lines.append(
                f"{listing.where}: {len(self.unreadable)} of {files} files can't be used, more than "
                f"max-unreadable = {asked.max_unreadable}: {self.reasons()}"
            )
        if self.shapes:
            lines.append(f"{listing.where}: {self._mixed(target.shape)}")
        return lines

    def warnings(self, listing: Listing) -> list[str]:
        """One line for each kind of trouble that doesn't forbid to go on."""
        left_out = f"{len(self.unreadable)} files are left out: {self.reasons()}"
        ignored = [f"not used, though in {files:,} files: {note}" for note, files in self.notes.items()]
        return [f"{listing.where}: {text}" for text in [*([left_out] if self.unreadable else []), *ignored]]

    def reasons(self) -> str:
        """The first few unreadable files, with the reason of each."""
        first = [f"{printable(name)} {why}" for name, why in list(self.unreadable.items())[:_NAMED]]
        more = f" and {len(self.unreadable) - _NAMED} more" if len(self.unreadable) > _NAMED else ""
        return "; ".join(first) + more

    def _mixed(self, right: tuple[int, int, int]) -> str:
        name, found = next(iter(self.shapes.items()))
        channels, height, width = right
        if found[0] != channels:
            remedy = f'image-shape = "{max(found[0], channels)},{height},{width}" turns grey into colour'
        else:
            remedy = f"resize = {max(height, width)} fits all to that size"
        return (
            f"{len(self.shapes)} images are not {_in_words(right)}, such as {printable(name)} "
            f"({_in_words(found)}); {remedy}"
        )


@dataclass(frozen=True, eq=False)
class ReadFiles:
    """What was read.

    Attributes:
        arrays: images and labels, images memory-mapped; and if the listing names any, `{split}_patients` and
            `{split}_hospitals` (N,) int64: equal for equal patients; hospitals by `hospital_numbers`.
        names: of each record's file, by split.
        intensities: the lowest and the highest pixel as stored.
    """

    arrays: Arrays
    names: dict[str, list[str]]
    problems: Problems
    intensities: tuple[float, float]


def _in_words(shape: tuple[int, ...]) -> str:
    kind = {1: "grey", 3: "colour"}.get(shape[0], f"{shape[0]} channels")
    return f"{kind}, {shape[1]} x {shape[2]} pixels"


def first_shape(listing: Listing, asked: Declared) -> tuple[int, int, int]:
    """(C, H, W) of the first image that can be read, as the run would see it.

    Raises:
        UserError: none can be read.
    """
    problems = Problems()
    for entry in listing.entries:
        try:
            height, width, channels = as_asked(_picture(listing.folder, entry.path, asked), asked).shape
            return channels, height, width
        except Unreadable as error:
            problems.unreadable[entry.path] = str(error)
    raise UserError(f"{listing.where}: no file can be used: {problems.reasons()}")


def read_listing(listing: Listing, asked: Declared, target: Target, scratch: Path) -> ReadFiles:
    """Read all records that can be read, their images into files in `scratch`."""
    reading = _Reading(listing, asked, target)
    numbers = _numbers(listing.entries, target.class_names)
    channels, height, width = target.shape
    arrays: Arrays = {}
    names: dict[str, list[str]] = {}
    step(f"reading {len(listing.entries):,} image files", aloud=True)
    for split in SPLITS:
        entries = listing.of(split)
        kept: list[Entry] = []
        shape = (len(entries), height, width, channels)
        images = open_memmap(new_file(scratch), "w+", np.uint8, shape)
        for entry in entries:
            if (image := reading.image(entry)) is not None:
                images[len(kept)] = image
                kept.append(entry)
        arrays[f"{split}_images"] = images[: len(kept)]
        names[split] = [entry.path for entry in kept]
        for what, number in numbers.items():
            arrays[f"{split}_{what}"] = np.array([number(entry) for entry in kept], np.int64)
    return ReadFiles(arrays, names, reading.problems, (reading.lowest, reading.highest))


class _Reading:
    """Reads one file after the other, and notes what is wrong with it."""

    def __init__(self, listing: Listing, asked: Declared, target: Target) -> None:
        self._listing, self._asked, self._target = listing, asked, target
        self.problems = Problems({name: "is no image in a folder of a class" for name in listing.others})
        self.lowest, self.highest = math.inf, -math.inf
        self._done = 0

    def image(self, entry: Entry) -> np.ndarray | None:
        """The image (H, W, C) uint8; None, and noted, if there is none of the right shape."""
        self._done += 1
        count(self._done, len(self._listing.entries))
        try:
            picture = _picture(self._listing.folder, entry.path, self._asked)
            image = as_asked(picture, self._asked)
        except Unreadable as error:
            self.problems.unreadable[entry.path] = str(error)
            return None
        self.problems.notes.update(picture.notes)
        self.lowest = min(self.lowest, float(picture.pixels.min()))
        self.highest = max(self.highest, float(picture.pixels.max()))
        height, width, channels = image.shape
        if (channels, height, width) != self._target.shape:
            self.problems.shapes[entry.path] = (channels, height, width)
            return None
        return image


def _numbers(entries: Sequence[Entry], class_names: Sequence[str]) -> dict[str, Callable[[Entry], int]]:
    """How an entry's label, and its patient and hospital if any are named, become numbers."""
    labels = {name: label for label, name in enumerate(class_names)}
    patients = {name: number for number, name in enumerate(dict.fromkeys(each.patient for each in entries))}
    hospitals = hospital_numbers(entries)
    numbers: dict[str, Callable[[Entry], int]] = {"labels": lambda entry: labels[entry.label]}
    if any(patients):
        numbers["patients"] = lambda entry: patients[entry.patient]
    if hospitals:
        numbers["hospitals"] = lambda entry: hospitals.get(entry.hospital, NO_HOSPITAL)
    return numbers


def hospital_numbers(entries: Iterable[Entry]) -> dict[str, int]:
    """The number of each hospital that is named, in natural order of their names."""
    named_ones = {entry.hospital for entry in entries} - {""}
    return {name: number for number, name in enumerate(sorted(named_ones, key=natural))}


def _picture(folder: Path, name: str, asked: Declared) -> Picture:
    path = folder / name
    if (kind := kind_of(path)) != FILE:
        raise Unreadable(f"is {kind}" if kind.startswith("a ") else f"can't be read ({kind})")
    if path.resolve().is_relative_to(folder.resolve()):
        if path.suffix.lower() == ".dcm" or is_dicom(path):
            return read_dicom(path, windowed=asked.intensity_range is None)
        return read_picture(path)
    raise Unreadable("is a link to a file outside the folder")


def as_asked(picture: Picture, asked: Declared) -> np.ndarray:
    """The picture as (H, W, C) uint8, scaled by public constants, with the channels and size asked for.

    Raises:
        Unreadable: nothing says which values are black and white, or the channels can't be had.
    """
    black_and_white = asked.intensity_range or picture.full_range
    if black_and_white is None:
        raise Unreadable(f"has {picture.pixels.dtype} pixels of no known range; set intensity-range")
    try:
        image = to_8_bits(picture.pixels, black_and_white)
        image = 255 - image if picture.negative else image
        image = image[..., None] if image.ndim == 2 else image
        image = with_channels(image, asked.shape[0]) if asked.shape is not None else image
    except ValueError as error:
        raise Unreadable(f"has {error}") from None
    return fitted(image, asked.resize) if asked.resize else image
