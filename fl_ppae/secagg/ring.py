"""The ring of the sums: integers modulo 2**32, as uint32, which wrap around by themselves.

A real value is rounded to the nearest multiple of a public step. The sum of the multiples is exact as long as
it is below 2**31 steps; so the only error is rounding, at most half a step for each hospital.
"""

from __future__ import annotations

import numpy as np

from fl_ppae.errors import UserError

HALF = 2**31


def encode(values: np.ndarray, step: float) -> np.ndarray:
    """`values` (d,) float as multiples of `step` in the ring, (d,) uint32; an error of at most step / 2 each.

    A value beyond 2**31 steps wraps around.

    Raises:
        UserError: a value is not finite, or so large that float64 has no exact multiple of the step.
    """
    multiples = np.rint(np.asarray(values, np.float64) / step)
    if not (np.abs(multiples) < 2.0**53).all():  # also False for NaN
        raise UserError(
            "a value to be summed is not finite, or above 2**53 steps; clip it to its range first"
        )
    return encode_integers(multiples.astype(np.int64))


def encode_integers(integers: np.ndarray) -> np.ndarray:
    """(d,) int64 in the ring, (d,) uint32; wraps around."""
    return integers.astype(np.uint32)


def decode(total: np.ndarray, step: float) -> np.ndarray:
    """(d,) float64 of (d,) uint32: the multiple of `step` nearest to 0 that each element stands for."""
    return total.view(np.int32).astype(np.float64) * step


def check_range(largest: float, step: float) -> None:
    """Check that no sum of absolute value `largest` can wrap around.

    Raises:
        UserError: it can.
    """
    if not largest < HALF * step:
        raise UserError(
            f"sums up to {largest:g} in steps of {step:g} don't fit 32 bits; the step must be above "
            f"{largest / HALF:g}"
        )
