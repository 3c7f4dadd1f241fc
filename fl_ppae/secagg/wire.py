"""Bytes between hospitals and server: lists of fields, read strictly.

`pack` is injective, so what is signed or hashed has one reading only. Reading takes no more memory than the
bytes themselves, and runs nothing that they say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from fl_ppae.errors import PublicMistake

DIGEST = 32
_LENGTH = 4


class Refused(PublicMistake):
    """What came is not answered or not used. Its text has only names, counts, rounds and public keys."""


def number(value: int) -> bytes:
    """`value`, from 0 to 2**32 - 1, as a field."""
    return value.to_bytes(_LENGTH, "big")


def read_number(field: bytes) -> int:
    """The inverse of `number`.

    Raises:
        Refused: the field has another length.
    """
    if len(field) != _LENGTH:
        raise Refused(f"a number has {len(field)} bytes instead of {_LENGTH}")
    return int.from_bytes(field, "big")


def read_text(field: bytes) -> str:
    """The text in a field.

    Raises:
        Refused: it is not UTF-8.
    """
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise Refused("a text is not UTF-8") from None


def pack(fields: Iterable[bytes]) -> bytes:
    """One string of bytes with all `fields`, each after its length."""
    return b"".join(part for field in fields for part in (number(len(field)), field))


def unpack(data: bytes) -> list[bytes]:
    """The inverse of `pack`.

    Raises:
        Refused: the bytes end within a field.
    """
    fields, start = [], 0
    while start < len(data):
        stop = start + _LENGTH
        size = read_number(data[start:stop])
        if stop + size > len(data):
            raise Refused(f"a message of {len(data)} bytes ends within a field")
        fields.append(data[stop : stop + size])
        start = stop + size
    return fields


def pieces(data: bytes, size: int) -> list[bytes]:
    """`data` in pieces of `size` bytes; the caller has checked its length."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def check_length(data: bytes, expected: int, what: str) -> None:
    """Check that `what` has `expected` bytes.

    Raises:
        Refused: it has not.
    """
    if len(data) != expected:
        raise Refused(f"{what} has {len(data)} bytes instead of {expected}")


def digest(label: str, *fields: bytes) -> bytes:
    """SHA-256 of `fields`, 32 bytes. No two labels give the same digest."""
    return hashlib.sha256(pack((label.encode(), *fields))).digest()
