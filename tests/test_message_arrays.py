"""Arrays come through messages unchanged, and malformed ones are refused."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl_ppae import message_arrays
from fl_ppae.data.spec import LabelFormat
from fl_ppae.messages import ARRAYS, CLAIM, Malformed
from fl_ppae.models.codes import EncodingFormat

CLASS = LabelFormat((), 9)
ENCODER = {"1.weight": (16, 784), "1.bias": (16,)}


def test_an_encoder_comes_through_arrays_unchanged() -> None:
    state = {name: torch.randn(shape) for name, shape in ENCODER.items()}
    found = message_arrays.from_arrays(message_arrays.to_arrays(state), message_arrays.shapes_of(state))
    assert all(torch.equal(found[name], state[name]) for name in state)


def garbage(shape: tuple[int, ...]) -> Array:
    return Array(dtype="float32", shape=shape, stype="numpy.ndarray", data=b"no array")


@pytest.mark.parametrize(
    "changed",
    [
        {"1.weight": None},
        {"1.weight": Array(np.zeros((784, 16), np.float32))},
        {"1.weight": Array(np.zeros((16, 784), np.float64))},
        {"1.weight": Array(np.full((16, 784), np.nan, np.float32))},
        {"1.bias": Array(np.full(16, -np.inf, np.float32))},
        {"2.bias": Array(np.zeros(16, np.float32))},
        {"1.bias": garbage((16,))},
    ],
    ids=["missing", "shape", "type", "NaN", "infinite", "extra", "garbage"],
)
def test_a_malformed_update_is_malformed_and_no_crash(changed: dict[str, Array | None]) -> None:
    arrays = {**{name: Array(np.zeros(shape, np.float32)) for name, shape in ENCODER.items()}, **changed}
    with pytest.raises(Malformed):
        message_arrays.from_arrays(
            ArrayRecord({name: array for name, array in arrays.items() if array is not None}), ENCODER
        )


def chunk(chunks: Any = 1, **changes: Array | None) -> RecordDict:
    arrays = {
        "encodings": Array(np.ones((5, 16), np.float32)),
        "labels": Array(np.arange(5)),
        **changes,
    }
    present = {name: array for name, array in arrays.items() if array is not None}
    return RecordDict({CLAIM: ConfigRecord({"chunks": chunks}), ARRAYS: ArrayRecord(present)})


def test_a_chunk_is_read_with_and_without_labels() -> None:
    encodings, labels, chunks = message_arrays.read_chunk(chunk(3), EncodingFormat((16,)), CLASS)
    assert (encodings.shape, chunks) == ((5, 16), 3)
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3, 4]
    packed = chunk(encodings=Array(np.zeros((5, 2), np.uint8)))
    assert (message_arrays.read_chunk(packed, EncodingFormat((16,), 1), CLASS)[0] == -0.5).all()
    assert message_arrays.read_chunk(chunk(labels=None), EncodingFormat((16,)), None)[1] is None


@pytest.mark.parametrize(
    "encodings",
    [np.ones((5, 3), np.float32), np.zeros((5, 2), np.uint8), np.ones((5, 1), np.uint8)],
    ids=["floats", "size", "a bit too many"],
)
def test_a_chunk_that_is_not_packed_as_agreed_is_malformed(encodings: np.ndarray) -> None:
    with pytest.raises(Malformed):
        message_arrays.read_chunk(chunk(encodings=Array(encodings)), EncodingFormat((3,), 2), CLASS)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        chunk(0),
        chunk("many"),
        chunk(labels=None),
        chunk(encodings=None),
        chunk(encodings=Array(np.ones((5, 17), np.float32))),
        chunk(encodings=Array(np.ones((5, 4, 4), np.float32))),
        chunk(encodings=Array(np.ones((5, 16), np.float64))),
        chunk(encodings=Array(np.full((5, 16), np.inf, np.float32))),
        chunk(encodings=garbage((5, 16))),
        chunk(labels=Array(np.arange(4))),
        chunk(labels=Array(np.arange(5.0))),
        chunk(labels=Array(np.arange(5) - 1)),
        chunk(labels=Array(np.arange(5) + 6)),
        chunk(more=Array(np.arange(5))),
    ],
    ids=[
        "nothing",
        "no chunks",
        "chunks in words",
        "no labels",
        "no encodings",
        "size",
        "shape",
        "type",
        "infinite",
        "garbage",
        "too few labels",
        "labels of another type",
        "negative label",
        "label too large",
        "extra",
    ],
)
def test_a_malformed_chunk_is_malformed_and_no_crash(content: RecordDict) -> None:
    with pytest.raises(Malformed):
        message_arrays.read_chunk(content, EncodingFormat((16,)), CLASS)


def test_a_chunk_of_label_sets_is_read_and_another_number_of_labels_is_malformed() -> None:
    sets = np.eye(5, 3, dtype=np.int64)
    content = chunk(labels=Array(sets))
    read = message_arrays.read_chunk(content, EncodingFormat((16,)), LabelFormat((3,), 1))[1]
    assert read is not None
    assert (read == sets).all()
    for label in (CLASS, LabelFormat((4,), 1)):
        with pytest.raises(Malformed):
            message_arrays.read_chunk(content, EncodingFormat((16,)), label)
    with pytest.raises(Malformed, match="outside 0 to 1"):
        message_arrays.read_chunk(chunk(labels=Array(2 * sets)), EncodingFormat((16,)), LabelFormat((3,), 1))
