"""Bytes are read as an array only if they are exactly the array that was agreed."""

import io
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array
from numpy.lib import format as npy_format

from fl_ppae.npy import ANY, read_npy


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (4, 1, 3, 3), (0, 16)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_come_back_as_they_were(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    rng = np.random.default_rng(0)
    sent = (100 * rng.normal(size=shape)).astype(dtype)
    assert np.array_equal(read_npy(Array(np.asarray(sent)), dtype, shape), sent)
    if len(shape) > 1:
        columns_first = np.asfortranarray(sent)
        assert np.array_equal(read_npy(Array(columns_first), dtype, (ANY, *shape[1:])), sent)


def forged(**changes: object) -> Array:
    honest = Array(np.arange(6, dtype=np.float32).reshape(2, 3))
    values = {"dtype": honest.dtype, "shape": honest.shape, "stype": honest.stype, "data": honest.data}
    return Array(**{**values, **changes})


HONEST = forged().data


@pytest.mark.parametrize(
    "array",
    [
        forged(shape=(3, 2)),
        forged(shape=(2,)),
        forged(shape=(-2, -3)),
        forged(shape=(2, 3, 10**30)),
        forged(shape=(10**12, 3)),
        forged(stype="torch.pickle"),
        forged(dtype="float64"),
        forged(dtype="object"),
        forged(data=b""),
        forged(data=HONEST[:-1]),
        forged(data=HONEST + b"0"),
        forged(data=HONEST.replace(b"<f4", b">f4")),
        forged(data=HONEST.replace(b"<f4", b"|O ")),
        forged(data=HONEST.replace(b"(2, 3)", b"(9, 9)")),
        forged(data=HONEST.replace(b"NUMPY", b"numpy")),
        forged(data=HONEST.replace(b"{", b"(")),
    ],
)
def test_anything_else_is_refused(array: Array) -> None:
    with pytest.raises(ValueError, match="float32"):
        read_npy(array, np.float32, (2, 3))


def test_an_announced_size_reserves_no_memory() -> None:
    shape, file = (2_000_000_000, 3), io.BytesIO()
    npy_format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    huge = forged(shape=shape, data=file.getvalue())
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not hold"):
        read_npy(huge, np.float32, (ANY, 3))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
