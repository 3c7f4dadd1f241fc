"""What may leave a hospital: every record, key, value and byte, checked before it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_ppae import messages
from fl_ppae.data.spec import LabelFormat
from fl_ppae.masked_updates import length_of
from fl_ppae.messages import (
    ABSENT,
    ARRAYS,
    CLAIM,
    CLAIM_KEYS,
    DECLINED,
    DIAGNOSTICS,
    ENCODINGS,
    ENROL,
    EVALUATE,
    HELLO,
    LONGEST_TEXT,
    MASKED,
    METRICS,
    READY,
    RECORDS,
    SECAGG,
    TRAIN,
    TRAINED,
    Malformed,
    Shapes,
)
from fl_ppae.models.codes import EncodingFormat
from fl_ppae.npy import ANY, read_npy
from fl_ppae.secure_messages import SIZES

_DECLINING = (DECLINED, ABSENT)
_STATUSES = {
    ENROL: (READY, DECLINED),
    TRAIN: (TRAINED, *_DECLINING),
    ENCODINGS: (READY, DECLINED),
    **dict.fromkeys(SIZES, (READY, DECLINED)),
}


class Leak(Exception):
    """A hospital was about to send something that must not leave it."""


@dataclass(frozen=True)
class Outgoing:
    """What one hospital may send under its run.

    Attributes:
        update: shapes of an update's arrays: the encoder's, in some runs with the head's.
        encoding: how one encoding is sent.
        label: what a record's label is.
        masked: True if updates leave in the ring, masked, and with them what secure aggregation needs.
    """

    update: Shapes
    encoding: EncodingFormat
    label: LabelFormat
    shares_updates: bool
    shares_encodings: bool
    diagnostics: bool
    masked: bool = False


def check_outgoing(message_type: str, content: RecordDict, allowed: Outgoing) -> None:
    """Allow only what the table in `messages` lists for `message_type`; with a refusal, the claim alone.

    Raises:
        Leak: a record, key, value, array, shape, type or byte must not leave the hospital.
    """
    if message_type not in CLAIM_KEYS:
        raise Leak(f"no reply to a message of type {message_type!r} may leave a hospital")
    claim = content.config_records.get(CLAIM)
    declined = claim is not None and claim.get("status") in _DECLINING
    permitted = {
        HELLO: {CLAIM},
        ENROL: {CLAIM},
        TRAIN: {CLAIM, METRICS, ARRAYS} if allowed.shares_updates else {CLAIM, METRICS},
        ENCODINGS: {CLAIM, ARRAYS} if allowed.shares_encodings else {CLAIM},
        EVALUATE: {CLAIM, METRICS},
        **dict.fromkeys(SIZES, {CLAIM, SECAGG} if allowed.masked else {CLAIM}),
    }[message_type]
    _only(set(content), {CLAIM} if declined else permitted, "record")
    if claim is None or set(content.config_records) - {CLAIM, SECAGG}:
        raise Leak("a reply must hold one claim, and no other settings")
    _check_claim(claim, message_type)
    if SECAGG in content.config_records:
        _check_secagg(content.config_records[SECAGG], message_type)
    for metrics in content.metric_records.values():
        _check_metrics(metrics, {RECORDS, *DIAGNOSTICS} if allowed.diagnostics else {RECORDS})
    for arrays in content.array_records.values():
        if message_type == TRAIN:
            _check_update(arrays, allowed)
        else:
            _check_chunk(arrays, allowed.encoding, allowed.label)


def _only(found: set[str], permitted: set[str], kind: str) -> None:
    if extra := sorted(found - permitted):
        raise Leak(f"{kind} {', '.join(extra)} may not leave a hospital; only {', '.join(sorted(permitted))}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


_VALUES: Mapping[str, Callable[[object], bool]] = {
    "hospital": _is_text,
    "reason": _is_text,
    **dict.fromkeys(("index", "hospitals", "records", "test-records", "round", "chunks"), _is_count),
    "deployed": lambda value: isinstance(value, bool),
    "epsilon": lambda value: isinstance(value, float) and (value == -1 or 0 <= value < math.inf),
    "status": lambda value: isinstance(value, str),
    "events": lambda value: isinstance(value, str),
    "chain": messages.is_chain,
}


def _check_claim(claim: ConfigRecord, message_type: str) -> None:
    """Exactly the agreed keys, each with a value that it can have and no room for another message."""
    _only(set(claim), CLAIM_KEYS[message_type], "claim key")
    if missing := sorted(CLAIM_KEYS[message_type] - set(claim)):
        raise Leak(f"the claim lacks {', '.join(missing)}")
    for key, value in claim.items():
        if not _VALUES[key](value):
            raise Leak(f"claim key {key} may not leave a hospital with such a value")
    if message_type not in _STATUSES:
        return
    if claim["status"] not in _STATUSES[message_type]:
        raise Leak(f"status may leave a hospital only as one of {', '.join(_STATUSES[message_type])}")
    if bool(claim["reason"]) != (claim["status"] in _DECLINING):
        raise Leak("a reason leaves a hospital if, and only if, it declines")
    if "events" not in claim:
        return
    try:
        events = messages.read_events(claim)
    except Malformed:
        raise Leak("events may leave a hospital only as a list of events") from None
    if claim["events"] != messages.events_text(events):
        raise Leak("events may leave a hospital in one spelling only")


def _check_metrics(metrics: MetricRecord, permitted: set[str]) -> None:
    _only(set(metrics), permitted, "metric")
    for key, value in metrics.items():
        if not (_is_count(value) if key == RECORDS else _is_finite(value)):
            raise Leak(f"metric {key} may leave a hospital as one finite number only")


def _check_secagg(record: ConfigRecord, message_type: str) -> None:
    """Bytes alone, of a length that this answer can have."""
    data = record.get("data")
    if set(record) != {"data"} or not isinstance(data, bytes) or len(data) not in SIZES[message_type]:
        raise Leak(f"the record {SECAGG} may leave a hospital only as the bytes of {message_type}")


def _check_update(arrays: ArrayRecord, allowed: Outgoing) -> None:
    update = allowed.update
    if allowed.masked:
        _only(set(arrays), {MASKED}, "array")
        _numbers(arrays[MASKED], MASKED, np.uint32, (length_of(update),))
        return
    if set(arrays) != set(update):
        raise Leak(f"an update holds the arrays {sorted(update)}, not {sorted(arrays)}")
    for name, shape in update.items():
        _numbers(arrays[name], name, np.float32, shape)


def _check_chunk(arrays: ArrayRecord, encoding: EncodingFormat, label: LabelFormat) -> None:
    _only(set(arrays), {"encodings", "labels"}, "array")
    if "encodings" not in arrays:
        raise Leak("labels may leave a hospital only with their encodings")
    encodings = _numbers(arrays["encodings"], "encodings", encoding.sent_type, (ANY, *encoding.sent_shape))
    try:
        finite = np.isfinite(encoding.unpacked(encodings)).all()
    except ValueError as stray:
        raise Leak(f"encodings may not leave a hospital: {stray}") from None
    if not finite:
        raise Leak("encodings may leave a hospital only if they are finite")
    if "labels" in arrays:
        _numbers(arrays["labels"], "labels", np.int64, (len(encodings), *label.shape))


def _numbers(array: Array, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    try:
        return read_npy(array, dtype, shape)
    except ValueError as error:
        raise Leak(f"array {name} may not leave the hospital: it {error}") from None
