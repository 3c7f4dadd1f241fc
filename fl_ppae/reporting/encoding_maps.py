"""Encodings as two-dimensional maps that can be drawn."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_maps(encodings: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Encodings (N, *encoding) as maps (N, C, H, W). Vectors fold into a near-square, padded with NaN."""
    if encodings.ndim == 4:
        return encodings
    flat = encodings.reshape(len(encodings), -1)
    size = flat.shape[1]
    width = int(np.ceil(np.sqrt(size)))
    height = -(-size // width)
    padded = np.full((len(flat), height * width), np.nan, flat.dtype)
    padded[:, :size] = flat
    return padded.reshape(-1, 1, height, width)
