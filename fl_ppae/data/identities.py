"""Which images of a data set are the same, pixel by pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def identities(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A number for each image, by split: two images have the same number if all their pixels are equal.

    Args:
        images: (N, ...) uint8 by split; all images of one shape.

    Returns:
        (N,) int64 by split, counted from 0 over all splits in their order. Pixels are compared by a digest
        of 128 bits (BLAKE2b): 10 microseconds an image of 28 x 28 pixels in colour.
    """
    numbers: dict[bytes, int] = {}

    def number(pixels: np.ndarray) -> int:
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        return numbers.setdefault(digest, len(numbers))

    return {
        split: np.fromiter((number(image) for image in every), np.int64, len(every))
        for split, every in images.items()
    }
