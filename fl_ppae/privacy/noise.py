"""The Gaussian mechanism on a computer: normal noise on a public grid, within a stated error.

Guarantee: `add_noise(sums, std, stream)` releases, up to the error below, post-processing of `sums` plus
independent normal noise of standard deviation `std` in real arithmetic. `sums` are the float64 numbers
themselves, so their rounding belongs to their sensitivity (`privacy.clipping`), and no bit of the result
depends on which floats an addition can reach (Mironov 2012; Jin et al. 2022, arXiv:2112.05307): every
result is a multiple of the grid's step.

The error. A grid cell's probability is that of the ideal normal distribution times a factor of at most
1 + `CELL_ERROR`, or one over it: rounding in `standard_normal` and in the sum moves a cell's two borders by
less than 2e-12 of its width, as long as the normal number is below 12; it is larger with probability 4e-33.
Over 1e10 released numbers these factors together exceed e^(`SAMPLER_EPSILON` / 2) with probability below
1e-20 (Azuma's inequality, as in advanced composition, arXiv:1311.0776), once for each of two neighbouring
data sets. The accountant adds `SAMPLER_EPSILON` to each epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from fl_ppae.privacy.randomness import Stream

GRID_BITS = 6  # a step is between 1/128 and 1/64 of the noise's standard deviation: 2e-5 of its variance
CELL_ERROR = 5e-12
SAMPLER_EPSILON = 1e-5
_PIECE = 2**14  # numbers drawn at once; more would leave the processor's cache
_EXACT = 2**53  # integers from here on fill a float64's mantissa


def add_noise(sums: Sequence[Tensor], std: float, stream: Stream) -> list[Tensor]:
    """Each tensor of `sums`, float64, plus independent normal noise, on the grid of `grid_step(std)`.

    It is drawn and added on the processor, whatever the device of the sums.

    Args:
        std: standard deviation of the noise, > 0.
        stream: used for nothing else before or after with the same key.
    """
    step = grid_step(std)
    released = []
    for total in sums:
        numbers = total.cpu().numpy().reshape(-1)
        noisy = np.empty_like(numbers)
        for piece in _pieces(len(numbers)):
            # Exact, because the step is a power of two. Noise is added to the fraction of a cell alone.
            cells = numbers[piece] / step
            whole = np.floor(cells)
            noise = _by_inversion(len(cells), stream) * (std / step)
            noisy[piece] = (whole + np.rint(cells - whole + noise)) * step
        released.append(torch.from_numpy(noisy).view(total.shape).to(total.device))
    return released


def grid_step(std: float) -> float:
    """The public grid for noise of standard deviation `std`: a power of two from std / 128 to std / 64."""
    return 2.0 ** (math.floor(math.log2(std)) - GRID_BITS)


def standard_normal(count: int, stream: Stream) -> np.ndarray:
    """(count,) float64: independent standard normal numbers by inversion, accurate far into both tails.

    The tail probability that is inverted has a relative precision of 2**-52 down to 2**-139, far below that
    of 12 standard deviations, 2**-109.
    """
    drawn = np.empty(count)
    for piece in _pieces(count):
        drawn[piece] = _by_inversion(len(drawn[piece]), stream)
    return drawn


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE))


def _by_inversion(count: int, stream: Stream) -> np.ndarray:
    words = stream.words(count)
    integers = (words >> np.uint64(1)).view(np.int64)  # 63 bits; the last bit is the sign
    tail = integers.astype(np.float64) + 0.5
    few = np.flatnonzero(integers < _EXACT)  # one in 1,024: too few bits for a float64, so they get more
    if len(few):
        more, last = stream.words(2 * len(few)).astype(np.float64).reshape(2, -1)
        tail[few] = integers[few] + (more + (last + 0.5) * 2.0**-64) * 2.0**-64
    drawn: np.ndarray = ndtri(tail * 2.0**-64)
    return np.negative(drawn, out=drawn, where=(words & np.uint64(1)).astype(bool))
