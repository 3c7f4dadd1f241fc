"""What is declared of a user's own images: public constants, written as text in the keys of a run or a node.

Nothing here is taken from the images. A range, a mean or a percentile computed from private images would tell
something of them, and be a release that no ledger counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fl_ppae.errors import UserError, printable

OWN_DATA = "custom"
"""The value of `dataset` for a user's own images."""

DECLARING_KEYS = ("image-shape", "class-names", "intensity-range", "resize", "max-unreadable")
"""The arguments of `declared`, as a run's and a node's configuration spell them."""

MAX_SIDE, MAX_CHANNELS = 4096, 16


@dataclass(frozen=True)
class Declared:
    """How a user's own files are read, and what must be found in them.

    Attributes:
        shape: (C, H, W) of every image; None: as the first image has it.
        class_names: in the order of the labels; None: as the files have them.
        intensity_range: the values that become black and white; None: those of the type, or of a DICOM
            image's own window.
        resize: the side to which images are fitted, in pixels; 0: all must have one size.
        max_unreadable: how many files may be left out because they can't be read.
    """

    shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    intensity_range: tuple[float, float] | None = None
    resize: int = 0
    max_unreadable: int = 0


def declared(
    image_shape: str = "",
    class_names: str = "",
    intensity_range: str = "",
    resize: int = 0,
    max_unreadable: int = 0,
) -> Declared:
    """The values of the keys of these names; empty or 0: not declared.

    Raises:
        UserError: one can't be read, or contradicts another.
    """
    shape = shape_in(image_shape) if image_shape else None
    if resize and shape is not None and shape[1:] != (resize, resize):
        raise UserError(
            f'resize = {resize} contradicts image-shape = "{image_shape}"; use "{shape[0]},{resize},{resize}"'
        )
    return Declared(
        shape,
        names_in(class_names) if class_names else None,
        range_in(intensity_range) if intensity_range else None,
        resize,
        max_unreadable,
    )


def shape_in(text: str) -> tuple[int, int, int]:
    """(C, H, W) from `image-shape`, such as "3,28,28"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 3 and all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        channels, height, width = map(int, parts)
        if 1 <= channels <= MAX_CHANNELS and all(1 <= side <= MAX_SIDE for side in (height, width)):
            return channels, height, width
    raise UserError(
        f'image-shape = {text!r}: must be channels, height and width, such as "3,28,28"; at most '
        f"{MAX_CHANNELS} channels of {MAX_SIDE} pixels a side"
    )


def shape_text(shape: tuple[int, int, int]) -> str:
    """The value of `image-shape`."""
    return ",".join(map(str, shape))


def range_in(text: str) -> tuple[float, float]:
    """The two values in `intensity-range`, such as "-1000,400": of black and of white."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f'intensity-range = {text!r}: must be two numbers, the lower first, such as "0,4095"; they are '
            "public, so a range, a mean or a percentile of the images themselves can't be asked for"
        )
    return low, high


def names_in(text: str) -> tuple[str, ...]:
    """The classes in `class-names`, in the order of their labels."""
    names = tuple(text.split(","))
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"class-names = {text!r}: must be two or more different names with commas between them"
        )
    return names


def names_text(names: tuple[str, ...]) -> str:
    """The value of `class-names`."""
    return ",".join(names)


def class_name(name: str) -> str:
    """`name`, of any bytes, as it stands in `class-names`: printable, and without a comma."""
    return printable(name).replace(",", "\\x2c")
