"""Pixels of any type as 8 bits, by public constants alone, and images fitted to one size."""

from __future__ import annotations

import numpy as np
from PIL import Image

Range = tuple[float, float]


def range_of(dtype: np.dtype) -> Range | None:
    """The values of black and white that a type alone implies: of 8 and 16 unsigned bits; else None."""
    return (0, np.iinfo(dtype).max) if dtype in (np.dtype(np.uint8), np.dtype(np.uint16)) else None


def to_8_bits(pixels: np.ndarray, black_and_white: Range) -> np.ndarray:
    """`pixels` of any shape and type as uint8: black is 0, white 255, what lies outside is clipped.

    Raises:
        ValueError: a pixel is NaN or infinite.
    """
    low, high = black_and_white
    if pixels.dtype == np.uint8 and (low, high) == (0, 255):
        return pixels
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are NaN or infinite")
    return np.rint((values - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """The image (H, W, C) uint8 scaled to fit into `side` x `side` pixels, centred on black.

    Height and width keep their proportion (bicubic, antialiased), so nothing is cut off or distorted.
    """
    height, width, channels = image.shape
    if (height, width) == (side, side):
        return image
    scale = side / max(height, width)
    rows, columns = (max(1, round(length * scale)) for length in (height, width))
    top, left = (side - rows) // 2, (side - columns) // 2
    square = np.zeros((side, side, channels), np.uint8)
    for channel in range(channels):
        scaled = Image.fromarray(image[..., channel]).resize((columns, rows), Image.Resampling.BICUBIC)
        square[top : top + rows, left : left + columns, channel] = np.asarray(scaled)
    return square


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """The image (H, W, C) uint8 with `channels`: grey is repeated; colour becomes its luma (ITU-R BT.601).

    Raises:
        ValueError: it is neither a change from 1 to 3 nor from 3 to 1, nor none.
    """
    found = image.shape[2]
    if found == channels:
        return image
    if (found, channels) == (1, 3):
        return np.repeat(image, 3, axis=2)
    if (found, channels) == (3, 1):
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    raise ValueError(f"{found} channels, not {channels}")
