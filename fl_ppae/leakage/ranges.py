"""Samples outside the range that a measure is defined on: refused, never clipped or broadcast into it."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite

_ROUNDING = 1e-5  # of float32 arithmetic on pixels, and of probabilities that sum to 1


def check_images(**samples: Tensor) -> None:
    """Refuse samples, by name, that are not one or more float images (N, C, H, W) in [0, 1].

    Raises:
        Unmeasurable: names the first such sample, and its shape, its type or its range.
    """
    check_finite(**samples)
    for name, images in samples.items():
        if images.ndim != 4 or not images.numel():
            raise Unmeasurable(f"{name} has the shape {tuple(images.shape)}, not (N, C, H, W)")
        if not images.is_floating_point():
            raise Unmeasurable(f"{name} is {images.dtype}: pixels are floats in [0, 1]")
        low, high = (edge.item() for edge in images.aminmax())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise Unmeasurable(f"{name} has pixels from {low:g} to {high:g}, outside [0, 1]")


def check_shares(**samples: Tensor | NDArray[Any]) -> None:
    """Refuse samples (N, K), by name, whose rows are not probabilities: in [0, 1] with sum 1.

    Raises:
        Unmeasurable: names the first such sample.
    """
    check_finite(**samples)
    for name, sample in samples.items():
        rows = np.asarray(sample, np.float64)
        if rows.min(initial=0) < -_ROUNDING or np.abs(rows.sum(-1) - 1).max(initial=0) > _ROUNDING:
            raise Unmeasurable(f"{name} are not probabilities: each row must be in [0, 1] and sum to 1")


def check_paired(least: int = 1, **samples: Sized) -> None:
    """Refuse samples, by name, that are not equally many, or fewer than `least`.

    Raises:
        Unmeasurable: names them and their numbers.
    """
    counts = {name: len(sample) for name, sample in samples.items()}
    if len(set(counts.values())) > 1 or min(counts.values()) < least:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise Unmeasurable(f"needs {least} or more, and as many of each, got {found}")
