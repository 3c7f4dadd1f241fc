"""Arrays in messages: encoders, projections and chunks of encodings, checked when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fl_ppae.data.spec import LabelFormat
from fl_ppae.messages import ARRAYS, CLAIM, MASKED, PROJECTION, Malformed, Shapes
from fl_ppae.models.codes import EncodingFormat
from fl_ppae.npy import ANY, read_npy
from fl_ppae.privacy.encodings import Projection

# The largest weight that is taken from outside. Trained weights are below 100; at this bound every encoder
# still maps every image to finite float32 numbers, so that no weights make a record's encoding overflow.
MAX_WEIGHT = 1e6
CHUNK_BYTES = 4 * 2**20  # of encodings in one message: ordinary networks and proxies let it through
CLIP_NORMS = (1e-12, 1e12)  # of projected encodings, which at most have the size of weights times pixels


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each array in a module's state, by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def to_arrays(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A module's state as Flower arrays."""
    return ArrayRecord({name: tensor.detach().cpu() for name, tensor in state.items()})


def from_arrays(arrays: ArrayRecord, shapes: Shapes) -> dict[str, torch.Tensor]:
    """The tensors of an encoder received in a message.

    Raises:
        Malformed: names, shapes or types differ from `shapes`, or a value is not finite or above MAX_WEIGHT.
    """
    if set(arrays) != set(shapes):
        raise Malformed(f"its arrays are not the encoder's: {', '.join(sorted(shapes))}")
    tensors = {}
    for name, shape in shapes.items():
        array = _numbers(arrays[name], name, np.float32, shape)
        _check_size(array, f"array {name}")
        tensors[name] = torch.from_numpy(np.array(array))
    return tensors


def masked_in(arrays: ArrayRecord, length: int) -> ArrayRecord:
    """The masked update, (length,) uint32, received in a message; nothing beside it.

    Raises:
        Malformed: another name, shape or type.
    """
    if set(arrays) != {MASKED}:
        raise Malformed("its arrays are not a masked update")
    return ArrayRecord({MASKED: Array(_numbers(arrays[MASKED], MASKED, np.uint32, (length,)))})


def _numbers(array: Array, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    try:
        return read_npy(array, dtype, shape)
    except ValueError as error:
        raise Malformed(f"array {name} {error}") from None


def _check_size(array: np.ndarray, what: str) -> None:
    if not np.isfinite(array).all():
        raise Malformed(f"{what} has values that are not finite")
    if np.abs(array).max(initial=0.0) > MAX_WEIGHT:
        raise Malformed(f"{what} has values above {MAX_WEIGHT:g}")


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
    if record is None or set(record) != {"centre", "components", "clip-norm"}:
        raise Malformed("a projection has centre, components, clip-norm")
    centre = _numbers(record["centre"], "centre", np.float32, (numbers,))
    components = _numbers(record["components"], "components", np.float32, (size, numbers))
    clip_norm = float(_numbers(record["clip-norm"], "clip-norm", np.float64, ()))
    _check_size(centre, "centre of the projection")
    _check_size(components, "components of the projection")
    least, most = CLIP_NORMS
    if not least <= clip_norm <= most:
        raise Malformed(f"clip-norm of the projection is not from {least:g} to {most:g}")
    return Projection(centre, components, clip_norm)


def rows_of_a_chunk(encoding: EncodingFormat) -> int:
    """How many encodings every chunk of an upload holds; the last one holds what is left."""
    return max(1, CHUNK_BYTES // (math.prod(encoding.sent_shape) * np.dtype(encoding.sent_type).itemsize))


def chunks_of(records: int, encoding: EncodingFormat) -> int:
    """How many chunks an upload of `records` encodings has: at least one."""
    return max(1, math.ceil(records / rows_of_a_chunk(encoding)))


def read_chunk(
    content: RecordDict, encoding: EncodingFormat, label: LabelFormat | None, rows: int = ANY
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """A chunk: encodings (N, *encoding.shape) float32, labels (N, *label.shape) int64 and number of chunks.

    Without `label`, it must hold no labels. N must be `rows`; codes of another length are not unpacked, which
    would take up to 64 times their bytes.

    Raises:
        Malformed: not the agreed names, shapes, types, label range or finite values.
    """
    arrays = content.array_records.get(ARRAYS)
    claim = content.config_records.get(CLAIM)
    wanted = {"encodings", "labels"} if label else {"encodings"}
    if arrays is None or set(arrays) != wanted or claim is None:
        raise Malformed(f"its chunk must hold {', '.join(sorted(wanted))} and a claim")
    chunks = claim.get("chunks")
    if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
        raise Malformed(f"it announces {chunks!r} chunks")
    sent = _numbers(arrays["encodings"], "encodings", encoding.sent_type, (rows, *encoding.sent_shape))
    try:
        encodings = encoding.unpacked(sent)
    except ValueError as stray:
        raise Malformed(f"its encodings can't be read: {stray}") from None
    if not np.isfinite(encodings).all():
        raise Malformed("its encodings have values that are not finite")
    if label is None:
        return encodings, None, chunks
    labels = _numbers(arrays["labels"], "labels", np.int64, (len(encodings), *label.shape))
    if len(labels) and not (labels.min() >= 0 and labels.max() <= label.highest):
        raise Malformed(f"its labels are outside 0 to {label.highest}")
    return encodings, labels, chunks
