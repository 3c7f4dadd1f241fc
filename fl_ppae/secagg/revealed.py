"""The shares that a hospital reveals after a round: one of each hospital between which masks were used."""

from __future__ import annotations

from collections.abc import Iterable

from fl_ppae.secagg.masks import KEY
from fl_ppae.secagg.wire import check_length, pieces

_HELD, _MISSING = b"\1", b"\0"
_SIZE = 1 + KEY


def pack_revealed(shares: Iterable[bytes | None]) -> bytes:
    """Shares of 32 bytes, in the order of their owners; None for one that the hospital does not hold."""
    return b"".join(_MISSING + bytes(KEY) if share is None else _HELD + share for share in shares)


def revealed_size(owners: int) -> int:
    """Bytes of the packed shares of so many owners."""
    return owners * _SIZE


def read_revealed(data: bytes, owners: tuple[str, ...]) -> dict[str, bytes | None]:
    """The inverse of `pack_revealed`, by owner.

    Raises:
        Refused: wrong length.
    """
    check_length(data, revealed_size(len(owners)), "what it revealed")
    shares = (piece[1:] if piece[:1] == _HELD else None for piece in pieces(data, _SIZE))
    return dict(zip(owners, shares, strict=True))
