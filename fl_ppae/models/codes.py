"""Codes of few bits: encodings rounded to a public grid, and packed into bytes as they leave a hospital.

Rounding caps what one upload of one image can carry. It adds no noise, so it has no epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_ppae.models.autoencoders import Shape

Array = NDArray[Any]

MOST_BITS = 8
FLOAT_BITS = 32


@dataclass(frozen=True)
class EncodingFormat:
    """How one encoding leaves a hospital: as floats, or with `bits` bits for each of its numbers.

    Attributes:
        shape: of the encoding.
        bits: 0 for float32, else 1 to 8.
    """

    shape: Shape
    bits: int = 0

    @property
    def numbers(self) -> int:
        """In one encoding."""
        return prod(self.shape)

    @property
    def capacity(self) -> int:
        """Bits that one upload of one image carries at most."""
        return self.numbers * (self.bits or FLOAT_BITS)

    @property
    def sent_shape(self) -> Shape:
        """Shape of one encoding in a message: its own, or its number of bytes."""
        return (ceil(self.capacity / 8),) if self.bits else self.shape

    @property
    def sent_type(self) -> type[np.generic]:
        """Of the numbers in a message."""
        return np.uint8 if self.bits else np.float32

    def packed(self, encodings: Array) -> Array:
        """Encodings (N, *shape) as (N, *sent_shape); numbers outside [-1, 1] count as its ends."""
        if not self.bits:
            return encodings
        cells = _cells(encodings.reshape(len(encodings), self.numbers), self.bits).astype(np.uint8)
        digits = np.unpackbits(cells[..., None], axis=2)[..., 8 - self.bits :]
        return np.packbits(digits.reshape(len(cells), self.capacity), axis=1)

    def unpacked(self, sent: Array) -> Array:
        """The inverse of `packed`: (N, *sent_shape) to (N, *shape) float32, on the grid if it has one.

        Raises:
            ValueError: a bit is set after the last number's.
        """
        if not self.bits:
            return sent
        digits = np.unpackbits(sent, axis=1)
        if digits[:, self.capacity :].any():
            raise ValueError(f"an encoding has {self.capacity} bits, and no others are set")
        digits = digits[:, : self.capacity].reshape(len(sent), self.numbers, self.bits)
        cells = digits @ (1 << np.arange(self.bits)[::-1])
        return _centres(cells, self.bits).reshape(len(sent), *self.shape)


def quantised(encodings: Array, bits: int) -> Array:
    """Each number, clipped to [-1, 1], as the centre of its one of 2^bits equal cells; float32.

    `bits` = 0: unchanged.
    """
    return _centres(_cells(encodings, bits), bits) if bits else encodings


def straight_through(encodings: Tensor, bits: int) -> Tensor:
    """As `quantised`, with the gradient of the identity (Bengio et al. 2013, arXiv:1308.3432)."""
    rounded = torch.from_numpy(quantised(encodings.detach().cpu().numpy(), bits)).to(encodings)
    return encodings + (rounded - encodings).detach()


def capacity_in_words(encoding: EncodingFormat) -> str:
    """What a quantised code promises, and what it doesn't; empty for floats."""
    if not encoding.bits:
        return ""
    return (
        f"k = {encoding.numbers} numbers x {encoding.bits} bits = {encoding.capacity} bits: "
        "one upload of one image carries at most k bits: whatever an attacker tries, its chance of guessing "
        "right grows at most 2^k-fold; views, rounds and re-encodings add up; label, order and the encoder's "
        "weights come on top; it makes nothing formal."
    )


def _cells(encodings: Array, bits: int) -> Array:
    """The cell of each number, 0 to 2^bits - 1."""
    count = 1 << bits
    return np.clip(np.floor((encodings.astype(np.float64) + 1) / 2 * count), 0, count - 1).astype(np.int64)


def _centres(cells: Array, bits: int) -> Array:
    return ((cells + 0.5) * 2 / (1 << bits) - 1).astype(np.float32)
