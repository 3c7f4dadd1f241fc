"""What may leave a hospital and what the server accepts: every record and key, checked on both sides.

| message | server asks with | hospital answers with |
|---|---|---|
| `query.hello` | nothing | its name, index, the federation's size |
| `query.enrol` | the run's directory (simulation) | number of records |
| `train` | encoder arrays, round | encoder arrays (not for `share = encodings`), number of records, claim |
| `query.encodings` | part, chunk; first: encoder, projection | a chunk of encodings (and labels), claim |
| `evaluate` | encoder arrays | number of records, loss (only with `diagnostics`) |

Anything else is a bug, and `check_outgoing` stops it before it leaves the hospital.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Message, MetricRecord, RecordDict

from fl_ppae.privacy.events import Event, as_dict, from_dict

Shapes = Mapping[str, tuple[int, ...]]
Content = dict[str, ArrayRecord | ConfigRecord | MetricRecord]
Claims = dict[str, ConfigRecordValues]

ARRAYS, CLAIM, METRICS, CONFIG, PROJECTION = "arrays", "claim", "metrics", "config", "projection"
HELLO, ENROL, TRAIN, ENCODINGS, EVALUATE = (
    "query.hello",
    "query.enrol",
    "train",
    "query.encodings",
    "evaluate",
)
TRAINED, DECLINED, READY = "trained", "declined", "ready"
RECORDS = "num-examples"  # the key that FedAvg weights by
DIAGNOSTICS = ("loss", "clipped-fraction", "signal-to-noise")

_CLAIM_KEYS = {
    HELLO: {"hospital", "index", "hospitals", "deployed"},
    ENROL: {"hospital", "status", "reason", "records", "test-records", "events"},
    TRAIN: {"hospital", "status", "reason", "events", "epsilon"},
    ENCODINGS: {"hospital", "status", "reason", "chunks", "events"},
    EVALUATE: {"hospital"},
}


class Leak(Exception):
    """A hospital was about to send something that must not leave it."""


class Malformed(Exception):
    """A message does not have the agreed form. The text says what is wrong with it."""


@dataclass(frozen=True)
class Outgoing:
    """What one hospital may send under its run.

    Attributes:
        encoder: shapes of the encoder's arrays.
        encoding: shape of one encoding as it is sent.
    """

    encoder: Shapes
    encoding: tuple[int, ...]
    shares_updates: bool
    shares_encodings: bool
    diagnostics: bool


@dataclass(frozen=True)
class Claim:
    """What a hospital reports about one round: its status and everything it has released so far."""

    hospital: str
    status: str
    reason: str
    events: tuple[Event, ...]
    epsilon: float


def events_text(events: Iterable[Event]) -> str:
    """Events as a JSON list, the form in which they are sent."""
    return json.dumps([as_dict(event) for event in events])


def claim_record(claim: Claim) -> ConfigRecord:
    """A claim as it is sent. Without DP its epsilon is infinite, and -1 is sent."""
    return ConfigRecord(
        {
            "hospital": claim.hospital,
            "status": claim.status,
            "reason": claim.reason,
            "events": events_text(claim.events),
            "epsilon": claim.epsilon if math.isfinite(claim.epsilon) else -1.0,
        }
    )


def read_claim(content: RecordDict) -> Claim:
    """The claim in a train reply.

    Raises:
        Malformed: a key or type is not that of a claim.
    """
    record = content.config_records.get(CLAIM)
    if record is None or set(record) != _CLAIM_KEYS[TRAIN]:
        raise Malformed(f"its claim must have the keys {', '.join(sorted(_CLAIM_KEYS[TRAIN]))}")
    events = read_events(record)
    epsilon = record["epsilon"]
    if not isinstance(epsilon, float) or not math.isfinite(epsilon):
        raise Malformed(f"its epsilon is {epsilon!r}, not a finite number")
    if record["status"] not in (TRAINED, DECLINED):
        raise Malformed(f"its status is {record['status']!r}, neither {TRAINED!r} nor {DECLINED!r}")
    return Claim(
        str(record["hospital"]),
        str(record["status"]),
        str(record["reason"]),
        events,
        math.inf if epsilon < 0 else epsilon,
    )


def read_events(record: ConfigRecord) -> tuple[Event, ...]:
    """The events in a claim: everything that the hospital's records have paid for, oldest first.

    Raises:
        Malformed: they can't be read.
    """
    try:
        return tuple(from_dict(event) for event in json.loads(str(record["events"])))
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Malformed(f"its events can't be read: {error}") from None


def read_metrics(content: RecordDict, diagnostics: tuple[str, ...]) -> MetricRecord:
    """The metrics of a reply: the number of records and exactly `diagnostics`, all of them numbers.

    Raises:
        Malformed: other metrics, or a value that is not a finite number.
    """
    metrics = content.metric_records.get(METRICS)
    wanted = {RECORDS, *diagnostics}
    if metrics is None or set(metrics) != wanted:
        raise Malformed(f"its metrics must be {', '.join(sorted(wanted))}")
    for key, value in metrics.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise Malformed(f"its metric {key} is {value!r}, not a finite number")
    return metrics


def check_outgoing(message_type: str, content: RecordDict, allowed: Outgoing) -> None:
    """Allow only what the table above lists for `message_type`.

    Raises:
        Leak: a record, key, array, shape or type must not leave the hospital.
    """
    if message_type not in _CLAIM_KEYS:
        raise Leak(f"no reply to a message of type {message_type!r} may leave a hospital")
    permitted = {
        HELLO: {CLAIM},
        ENROL: {CLAIM},
        TRAIN: {CLAIM, METRICS, ARRAYS} if allowed.shares_updates else {CLAIM, METRICS},
        ENCODINGS: {CLAIM, ARRAYS} if allowed.shares_encodings else {CLAIM},
        EVALUATE: {CLAIM, METRICS},
    }[message_type]
    _only(set(content), permitted, "record")
    for record in content.config_records.values():
        _only(set(record), _CLAIM_KEYS[message_type], "claim key")
        _scalars(record, (str, int, float))
    for metrics in content.metric_records.values():
        _only(set(metrics), {RECORDS, *DIAGNOSTICS} if allowed.diagnostics else {RECORDS}, "metric")
        _scalars(metrics, (int, float))
    for arrays in content.array_records.values():
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.dtype != ("int64" if name == "labels" else "float32"):
                raise Leak(f"array {name} of type {array.dtype} may not leave a hospital")
        if message_type == TRAIN and shapes != dict(allowed.encoder):
            raise Leak(f"only the encoder's arrays may leave, not {sorted(shapes)}")
        if message_type == ENCODINGS:
            _check_chunk(shapes, allowed.encoding)


def _only(found: set[str], permitted: set[str], kind: str) -> None:
    if extra := sorted(found - permitted):
        raise Leak(f"{kind} {', '.join(extra)} may not leave a hospital; only {', '.join(sorted(permitted))}")


def _scalars(record: Mapping[str, object], kinds: tuple[type, ...]) -> None:
    for key, value in record.items():
        if not isinstance(value, kinds):
            raise Leak(f"{key} may leave a hospital as one value only, not as {type(value).__name__}")


def _check_chunk(shapes: Shapes, encoding: tuple[int, ...]) -> None:
    _only(set(shapes), {"encodings", "labels"}, "array")
    for name, shape in shapes.items():
        expected = encoding if name == "encodings" else ()
        if tuple(shape[1:]) != expected:
            raise Leak(f"{name} of shape {tuple(shape)} may not leave; only (N, *{expected})")


def reply(to: Message, records: Content) -> Message:
    """A reply holding `records` by their names."""
    return Message(RecordDict(dict(records)), reply_to=to)
