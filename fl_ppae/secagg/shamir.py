"""Shamir's secret sharing of bytes (Shamir 1979), byte by byte in GF(256), with tables.

Guarantee: fewer shares than the threshold are independent of the secret, if the coefficients are uniform. A
share is as long as its secret. Nothing here detects a wrong share: see `dealing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

MAX_SHARES = 255


def _product_table() -> np.ndarray:
    """(256, 256) uint8: products in GF(256) modulo x^8 + x^4 + x^3 + x + 1."""
    powers = np.zeros(510, np.uint8)
    value = 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        doubled = (value << 1) ^ (0x11B if value & 0x80 else 0)
        value ^= doubled  # times 3, which generates the multiplicative group
    logarithms = np.zeros(256, np.int64)
    logarithms[powers[:255]] = np.arange(255)
    table = powers[logarithms[:, None] + logarithms[None, :]]
    table[0, :] = table[:, 0] = 0
    return table


_PRODUCT = _product_table()
_INVERSE = np.argmax(_PRODUCT == 1, axis=1).astype(np.uint8)  # of 0: 0


def split(secret: bytes, shares: int, threshold: int, random: Callable[[int], bytes]) -> list[bytes]:
    """`shares` shares of `secret`, of which any `threshold` rebuild it; share i has position i + 1.

    Args:
        random: gives as many uniform, secret bytes as it is asked for.

    Raises:
        ValueError: not 1 <= threshold <= shares <= 255.
    """
    if not 1 <= threshold <= shares <= MAX_SHARES:
        raise ValueError(f"threshold {threshold} of {shares} shares: must be 1 <= threshold <= shares <= 255")
    size = len(secret)
    drawn = np.frombuffer(random((threshold - 1) * size), np.uint8).reshape(threshold - 1, size)
    constant = np.frombuffer(secret, np.uint8)
    found = []
    for position in range(1, shares + 1):
        times_position = _PRODUCT[position]
        value = np.zeros(size, np.uint8)
        for coefficient in drawn:
            value = times_position[value ^ coefficient]
        found.append((value ^ constant).tobytes())
    return found


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret, from exactly as many shares as its threshold or more, by position.

    With fewer, or with a wrong one, the result is wrong, too.

    Raises:
        ValueError: no shares, or they differ in length.
    """
    if not shares or len({len(share) for share in shares.values()}) != 1:
        raise ValueError("shares of one secret have the same length, and there is at least one")
    weights = _weights(tuple(shares))
    values = np.stack([np.frombuffer(share, np.uint8) for share in shares.values()])
    return np.bitwise_xor.reduce(_PRODUCT[weights[:, None], values], axis=0).tobytes()


@lru_cache(maxsize=64)
def _weights(positions: tuple[int, ...]) -> np.ndarray:
    """(len(positions),) uint8: Lagrange's weights at 0."""
    weights = []
    for own in positions:
        weight = 1
        for other in positions:
            if other != own:
                weight = int(_PRODUCT[weight, _PRODUCT[other, _INVERSE[own ^ other]]])
        weights.append(weight)
    return np.array(weights, np.uint8)
