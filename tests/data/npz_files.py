"""Small .npz files in MedMNIST's keys, sound and forged."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np

from fl_ppae.data.npz import Arrays


def medmnist_arrays(n: int = 12, channels: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28, channels), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 8, (n, 1), dtype=np.uint8)
    return arrays


def write(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


def packed(arrays: Arrays, method: int = zipfile.ZIP_STORED, **raw: bytes) -> bytes:
    """An .npz of `arrays`, compressed by `method`. `raw`: the bytes of a further member, by its key."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for key, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(f"{key}.npy", member.getvalue())
        for key, content in raw.items():
            archive.writestr(f"{key}.npy", content)
    return file.getvalue()


def forged(content: bytes, *, flags: int = 0, method: int | None = None, version: int | None = None) -> bytes:
    """The archive with these `flags` raised in every member, and another compression method or version."""
    changed = bytearray(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        headers = [(member.header_offset, 4) for member in archive.infolist()]
        at = archive.start_dir
        for _ in range(len(headers)):
            headers.append((at, 6))
            at += 46 + sum(struct.unpack_from("<3H", content, at + 28))
    for start, offset in headers:  # version, flags, method: two bytes each, in both headers of a member
        old_version, old_flags, old_method = struct.unpack_from("<3H", content, start + offset)
        fields = (
            old_version if version is None else version,
            old_flags | flags,
            old_method if method is None else method,
        )
        struct.pack_into("<3H", changed, start + offset, *fields)
    return bytes(changed)
