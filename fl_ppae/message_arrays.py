"""Arrays in messages: encoders, projections and chunks of encodings, checked when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fl_ppae.messages import ARRAYS, CLAIM, PROJECTION, Malformed, Shapes
from fl_ppae.privacy.encodings import Projection


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each array in a module's state, by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def to_arrays(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A module's state as Flower arrays."""
    return ArrayRecord({name: tensor.detach().cpu() for name, tensor in state.items()})


def from_arrays(arrays: ArrayRecord, shapes: Shapes) -> dict[str, torch.Tensor]:
    """The tensors of an encoder received in a message.

    Raises:
        Malformed: names, shapes or types differ from `shapes`, or a value is not finite.
    """
    if set(arrays) != set(shapes):
        raise Malformed(f"its arrays are {sorted(arrays)}, not {sorted(shapes)}")
    tensors = {}
    for name, shape in shapes.items():
        array = _numpy(arrays[name], name)
        if array.shape != shape or array.dtype != np.float32:
            raise Malformed(f"array {name} is {array.dtype} {array.shape}, not float32 {shape}")
        if not np.isfinite(array).all():
            raise Malformed(f"array {name} has values that are not finite")
        tensors[name] = torch.from_numpy(np.array(array))
    return tensors


def _numpy(array: Array, name: str) -> np.ndarray:
    try:
        return array.numpy()
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise Malformed(f"array {name} can't be read: {error}") from None


def projection_record(projection: Projection) -> ArrayRecord:
    """A projection as Flower arrays."""
    arrays = {
        "centre": projection.centre,
        "components": projection.components,
        "clip-norm": np.float64(projection.clip_norm),
    }
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def read_projection(content: RecordDict, size: int, encoding: Sequence[int]) -> Projection:
    """The projection to `size` numbers received in a message, for encodings of shape `encoding`.

    Raises:
        Malformed: it is missing, or its names, shapes, types or values are not those of a projection.
    """
    record = content.array_records.get(PROJECTION)
    numbers = math.prod(encoding)
    shapes = {"centre": (numbers,), "components": (size, numbers), "clip-norm": ()}
    if record is None or set(record) != set(shapes):
        raise Malformed(f"a projection has {', '.join(shapes)}")
    arrays = {name: _numpy(record[name], name) for name in shapes}
    for name, array in arrays.items():
        wanted = np.float64 if name == "clip-norm" else np.float32
        if array.shape != shapes[name] or array.dtype != wanted or not np.isfinite(array).all():
            raise Malformed(f"{name} of the projection is not finite {wanted.__name__} {shapes[name]}")
    if arrays["clip-norm"] <= 0:
        raise Malformed("clip-norm of the projection is not positive")
    return Projection(arrays["centre"], arrays["components"], float(arrays["clip-norm"]))


def read_chunk(
    content: RecordDict, encoding: Sequence[int], labelled: bool, num_classes: int
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """A chunk: encodings (N, *encoding) float32, labels (N,) int64 if `labelled`, and the number of chunks.

    Raises:
        Malformed: not the agreed names, shapes, types, label range or finite values.
    """
    arrays = content.array_records.get(ARRAYS)
    claim = content.config_records.get(CLAIM)
    wanted = {"encodings", "labels"} if labelled else {"encodings"}
    if arrays is None or set(arrays) != wanted or claim is None:
        raise Malformed(f"its chunk must hold {', '.join(sorted(wanted))} and a claim")
    chunks = claim.get("chunks")
    if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
        raise Malformed(f"it announces {chunks!r} chunks")
    encodings = _numpy(arrays["encodings"], "encodings")
    if encodings.dtype != np.float32 or encodings.shape[1:] != tuple(encoding):
        raise Malformed(
            f"encodings are {encodings.dtype} {encodings.shape}, not float32 (N, *{tuple(encoding)})"
        )
    if not np.isfinite(encodings).all():
        raise Malformed("its encodings have values that are not finite")
    if not labelled:
        return encodings, None, chunks
    labels = _numpy(arrays["labels"], "labels")
    if labels.dtype != np.int64 or labels.shape != encodings.shape[:1]:
        raise Malformed(f"labels are {labels.dtype} {labels.shape}, not int64 ({len(encodings)},)")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise Malformed(f"its labels are outside 0 to {num_classes - 1}")
    return encodings, labels, chunks
