"""The bytes of a Flower array, read only if they are exactly those of an array of the agreed type and shape.

`Array.numpy` believes the header inside the bytes: a few bytes that announce a terabyte make it reserve a
terabyte, and whatever follows the numbers is ignored. Here no header is interpreted: it is compared with the
one that numpy writes for what was agreed.
"""

from __future__ import annotations

import io
import math

import numpy as np
from flwr.app import Array
from flwr.common.constant import SType
from numpy.lib import format as npy_format

ANY = -1  # in a shape: any length


def read_npy(array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """The numbers in `array`, read-only, if they are of `dtype` and `shape`; ANY in it is any length.

    Raises:
        ValueError: they are not. The text is what was agreed, and quotes nothing of the array.
    """
    kind, declared = np.dtype(dtype), tuple(array.shape)
    agreed = f"{kind} ({', '.join('N' if length == ANY else str(length) for length in shape)})"
    if (
        array.stype != SType.NUMPY
        or array.dtype != str(kind)
        or len(declared) != len(shape)
        or any(length < 0 for length in declared)
        or any(wanted not in (ANY, length) for length, wanted in zip(declared, shape, strict=True))
    ):
        raise ValueError(f"is not {agreed}")
    size = math.prod(declared) * kind.itemsize
    for columns_first in (False, True):
        header = _header(kind, declared, columns_first)
        if array.data.startswith(header) and len(array.data) == len(header) + size:
            numbers = np.frombuffer(array.data, kind, offset=len(header))
            return numbers.reshape(declared, order="F" if columns_first else "C")
    raise ValueError(f"does not hold the {agreed} that it declares")


def _header(kind: np.dtype, shape: tuple[int, ...], columns_first: bool) -> bytes:
    """What numpy writes before the numbers."""
    file = io.BytesIO()
    described = {"descr": npy_format.dtype_to_descr(kind), "fortran_order": columns_first, "shape": shape}
    npy_format.write_array_header_1_0(file, described)
    return file.getvalue()
