"""Shamir's secret sharing of bytes (Shamir 1979), byte by byte in GF(256), with tables.

Guarantee: fewer shares than the threshold are independent of the secret, if the coefficients are uniform. A
share is as long as its secret. Nothing here detects a wrong share: see `dealing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

MAX_SHARES = 255


def _powers() -> np.ndarray:
    """(255,) uint8: the powers of 3, all nonzero elements of GF(256) modulo x^8 + x^4 + x^3 + x + 1."""
    powers, value = np.zeros(255, np.uint8), 1
    for exponent in range(255):
        powers[exponent] = value
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
    return powers


_POWERS = _powers()
_LOGARITHMS = np.zeros(256, np.int64)
_LOGARITHMS[_POWERS] = np.arange(255)
_PRODUCT = _POWERS[(_LOGARITHMS[:, None] + _LOGARITHMS) % 255]
_PRODUCT[0, :] = _PRODUCT[:, 0] = 0


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
    weights = _weights(np.array(list(shares), np.uint8))
    values = np.stack([np.frombuffer(share, np.uint8) for share in shares.values()])
    return np.bitwise_xor.reduce(_PRODUCT[weights[:, None], values], axis=0).tobytes()


def _weights(positions: np.ndarray) -> np.ndarray:
    """(n,) uint8: Lagrange's weights at 0, the product of x / (x - own) over all other positions x."""
    above = _LOGARITHMS[positions]
    below = _LOGARITHMS[positions[:, None] ^ positions]  # 0 on the diagonal, as is right for no factor
    return _POWERS[(above.sum() - above - below.sum(axis=1)) % 255]
