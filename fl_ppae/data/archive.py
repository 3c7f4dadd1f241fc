"""The arrays of an `.npz`, a ZIP archive of `.npy` files, read without pickle and without trusting it.

An array is unpacked into a file and mapped, so that none has to fit into memory. Nothing is unpacked unless
its header fits the size that the archive's directory gives it.
"""

from __future__ import annotations

import errno
import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from fl_ppae.data.pieces import new_file
from fl_ppae.errors import UserError
from fl_ppae.paths import file_problem, os_reason

_ENCRYPTED = 0x1 | 0x40  # flags of a member: encrypted, strongly encrypted
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_AGAIN = "write it again with numpy.savez"
_CHUNK = 2**20  # bytes

# What zipfile, the decompressors and numpy's parser of headers raise on bytes that nobody wrote for them.
_DAMAGE = (
    EOFError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_members(path: Path, wanted: Set[str], scratch: Path) -> dict[str, object]:
    """The members of the archive `path` by name, without `.npy`: an array if it is wanted, else None.

    The arrays are mapped files in the folder `scratch`.

    Raises:
        UserError: one line naming the file, what is wrong and what would be right.
        OSError: `scratch` can't be written.
    """
    if problem := file_problem(path):
        raise UserError(f"{path}: {problem}; expected an .npz, as numpy.savez writes it")
    with _explained(f"{path}", "is not an .npz, or a damaged one"):
        with path.open("rb") as file:
            is_array = file.read(len(npy_format.MAGIC_PREFIX)) == npy_format.MAGIC_PREFIX
        if is_array:
            raise UserError(f"{path}: a single .npy array; expected an .npz, as numpy.savez writes it")
        archive = zipfile.ZipFile(path)
    stored: dict[str, object] = {}
    with archive:
        names = {member: member.filename.removesuffix(".npy") for member in archive.infolist()}
        arrays = [member for member, key in names.items() if key in wanted and key != member.filename]
        with enough_memory(str(path), sum(member.file_size for member in arrays)):
            for member, key in names.items():
                where = f"{path}: {key}"
                stored[key] = _read(archive, member, where, scratch) if member in arrays else None
    return stored


def member_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in the archive `path`, which `read_members` has named; reads no more of it.

    Raises:
        UserError: as `read_members`.
    """
    where = f"{path}: {name}"
    with _explained(where, "is damaged or cut short"), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        _check_can_be_unpacked(member, where)
        with archive.open(member) as file:
            return _header(file, where)


@contextmanager
def enough_memory(where: str, size: int) -> Iterator[None]:
    """Say so if memory runs out in this block, which needs `size` bytes.

    Raises:
        UserError: memory ran out. The message begins with `where`.
    """
    try:
        yield
    except MemoryError:
        raise UserError(f"{where}: not enough memory, needs {math.ceil(size / 1e6)} MB") from None


def _check_can_be_unpacked(member: zipfile.ZipInfo, where: str) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise UserError(f"{where} is encrypted; {_AGAIN}")
    if member.compress_type not in _METHODS:
        raise UserError(f"{where} has compression method {member.compress_type}; {_AGAIN}")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, scratch: Path) -> np.ndarray:
    _check_can_be_unpacked(member, where)
    with _explained(where, "is damaged or cut short"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote
        with archive.open(member) as file:
            shape, dtype = _header(file, where)
            size = file.tell() + math.prod(shape) * dtype.itemsize
            if size > member.file_size:
                raise EOFError
    unpacked = new_file(scratch)
    with unpacked.open("wb") as target:  # if this fails, it is not the archive's fault
        for chunk in _unpacked(archive, member, where, size):
            target.write(chunk)
    return _mapped(unpacked)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a member."""
    with _explained(where, "is damaged or cut short"), archive.open(member) as file:
        while size:
            chunk = file.read(min(size, _CHUNK))
            if not chunk:
                raise EOFError
            size -= len(chunk)
            yield chunk


def _mapped(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            array: np.ndarray = npy_format.open_memmap(path, mode="r")
            return array
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from None
        raise


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype]:
    version = npy_format.read_magic(file)
    if version not in _HEADERS:
        raise UserError(f"{where} has .npy format {version[0]}.{version[1]}, not 1.0 or 2.0; {_AGAIN}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise UserError(
            f"{where} is a pickled object array, which is never loaded; save it as an array of integers"
        )
    return shape, dtype


@contextmanager
def _explained(where: str, damage: str) -> Iterator[None]:
    """Turn whatever an archive makes the libraries raise in this block into one line.

    Raises:
        UserError: the line, which begins with `where`.
    """
    try:
        yield
    except UserError:  # a ValueError too
        raise
    except _DAMAGE:
        raise UserError(f"{where} {damage}; download it or {_AGAIN}") from None
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # bzip2's own error, or a place before the start of the file
            raise UserError(f"{where} {damage}; download it or {_AGAIN}") from None
        raise UserError(f"{where} can't be read ({os_reason(error)})") from None
    except RuntimeError as error:  # and NotImplementedError: perhaps sound, but nothing that zipfile unpacks
        raise UserError(f"{where} can't be unpacked ({error}); {_AGAIN}") from None
