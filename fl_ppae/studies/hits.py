"""Which test images a cell's classifier recognised, as text in a study's table, to pair cells by image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]


def packed(hits: Hits) -> str:
    """Hits (N,) as text: N, a colon, and eight images to two hexadecimal digits."""
    return f"{len(hits)}:{np.packbits(hits).tobytes().hex()}"


def unpacked(text: str) -> Hits:
    """The inverse of `packed`."""
    count, _, digits = text.partition(":")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=int(count))
    return bits.astype(bool)


def stacked(texts: Iterable[str]) -> Hits | None:
    """Hits (S, N) of several seeds; None if one has none, or they are not of equally many images."""
    rows = [unpacked(text) if text else None for text in texts]
    known = [row for row in rows if row is not None]
    if not known or len(known) < len(rows) or len({len(row) for row in known}) > 1:
        return None
    return np.stack(known)
