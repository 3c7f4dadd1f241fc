"""What hospital and server say to each other: the names of records and keys, and how claims are read.

| message | server asks with | hospital answers with |
|---|---|---|
| `query.hello` | nothing | its name, index, the federation's size |
| `query.enrol` | the run's directory (simulation) | numbers of records and test records, its round, claim |
| `train` | encoder arrays, round, last checkpoint | encoder (unless `share = encodings`), records, claim |
| `train`, `local-steps = 1` | encoder arrays (and head), round | their noised mean gradient, the same |
| `train`, `trains` is not `all` | all arrays | those arrays alone that learn, the same |
| `query.encodings` | part, chunk; first: encoder, projection | a chunk of encodings (and labels), claim |
| the same, `encoding-bits` above 0 | the same | encodings packed into bytes: uint8, the same |
| `evaluate` | encoder arrays | number of records, loss (only with `diagnostics`) |
| `train`, `protection = secagg` | the same; parcels | its update, masked: uint32; number of records, claim |
| `query.keys`, `.shares`, `.consistent`, `.unmask` | see `secure_messages` | bytes, claim |

Each message of a run that was interrupted and goes on names that run too. A claim holds the ledger's events
and chain of checksums. A hospital that declines answers with a claim that says so and why, and with nothing
else; one that can't take part in this masked round alone says "absent". One that fails answers with Flower's
error and a fixed text (`hospital.failures`). Anything else is a bug, and `outgoing.check_outgoing` stops it
before it leaves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Message, MetricRecord, RecordDict

from fl_ppae.errors import printable
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
KEYS, SHARES, CONSISTENT, UNMASK = "query.keys", "query.shares", "query.consistent", "query.unmask"
CHECKPOINTED, RESUMED = "checkpointed-round", "resumed-run"  # in a server's config, see `hospital.answers`
SECAGG, MASKED = "secagg", "masked"  # the record of those four, and the array of a masked update
TRAINED, DECLINED, READY = "trained", "declined", "ready"
ABSENT = "absent"  # declines this round alone
LONGEST_TEXT = 300  # characters of a name or reason
LONGEST_LEDGER = 2**24  # characters of a claim's events or chain: some 100,000 events, of 100 runs and more
CHAIN_DIGITS = 16  # of a ledger line's checksum, in a claim
RECORDS = "num-examples"  # the key that FedAvg weights by
DIAGNOSTICS = ("loss", "clipped-fraction", "signal-to-noise")

CLAIM_KEYS = {
    HELLO: {"hospital", "index", "hospitals", "deployed"},
    ENROL: {"hospital", "status", "reason", "records", "test-records", "round", "events", "chain"},
    TRAIN: {"hospital", "status", "reason", "events", "epsilon", "chain"},
    ENCODINGS: {"hospital", "status", "reason", "chunks", "events", "chain"},
    EVALUATE: {"hospital"},
    **{kind: {"hospital", "status", "reason"} for kind in (KEYS, SHARES, CONSISTENT, UNMASK)},
}


class Malformed(Exception):
    """A message does not have the agreed form. The text says what is wrong with it, as `reason_text`."""

    def __init__(self, text: str) -> None:
        super().__init__(reason_text(text))


@dataclass(frozen=True)
class Claim:
    """What a hospital reports about one round: its status and everything it has released so far.

    Attributes:
        chain: the checksums of its ledger's lines, see `chain_text`.
    """

    hospital: str
    status: str
    reason: str
    events: tuple[Event, ...]
    epsilon: float
    chain: str = ""


def chain_text(heads: Iterable[str]) -> str:
    """The first `CHAIN_DIGITS` of each line's checksum, which is of terms, events and random bits."""
    return "".join(head[:CHAIN_DIGITS] for head in heads)


def read_chain(record: ConfigRecord) -> str:
    """The chain in a claim.

    Raises:
        Malformed: it has not the form of one.
    """
    chain = record.get("chain")
    if not is_chain(chain):
        raise Malformed("its chain is not one of checksums")
    return str(chain)


def is_chain(value: object) -> bool:
    """True for a text that `chain_text` can return."""
    if not isinstance(value, str) or len(value) > LONGEST_LEDGER:
        return False
    return bool(re.fullmatch(rf"([0-9a-f]{{{CHAIN_DIGITS}}})*", value))


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
            "chain": claim.chain,
        }
    )


def read_claim(content: RecordDict) -> Claim:
    """The claim in a train reply.

    Raises:
        Malformed: a key or type is not that of a claim.
    """
    record = content.config_records.get(CLAIM)
    if record is None or set(record) != CLAIM_KEYS[TRAIN]:
        raise Malformed(f"its claim must have the keys {', '.join(sorted(CLAIM_KEYS[TRAIN]))}")
    events = read_events(record)
    epsilon = record["epsilon"]
    if not isinstance(epsilon, float) or not math.isfinite(epsilon):
        raise Malformed(f"its epsilon is {epsilon!r}, not a finite number")
    if record["status"] not in (TRAINED, DECLINED, ABSENT):
        raise Malformed(f"its status is {record['status']!r}, not {TRAINED!r}, {DECLINED!r} or {ABSENT!r}")
    return Claim(
        str(record["hospital"]),
        str(record["status"]),
        reason_text(str(record["reason"])),
        events,
        math.inf if epsilon < 0 else epsilon,
        read_chain(record),
    )


def read_events(record: ConfigRecord) -> tuple[Event, ...]:
    """The events in a claim: everything that the hospital's records have paid for, oldest first.

    Raises:
        Malformed: they can't be read.
    """
    if len(str(record.get("events"))) > LONGEST_LEDGER:
        raise Malformed(f"its events take more than {LONGEST_LEDGER} characters")
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
    count = metrics[RECORDS]
    if not isinstance(count, int) or count < 1:
        raise Malformed(f"its {RECORDS} is {count!r}, not a whole number from 1")
    return metrics


def check_name(claim: ConfigRecord, name: str) -> None:
    """Check that a claim is that of the hospital `name`, whose node sent it.

    Raises:
        Malformed: it names another hospital, or none.
    """
    if claim.get("hospital") != name:
        raise Malformed(f"it calls itself {reason_text(str(claim.get('hospital')))!r}")


def check_records(content: RecordDict, wanted: set[str]) -> None:
    """Check that a reply holds the records `wanted`, and no others.

    Raises:
        Malformed: it does not.
    """
    if set(content) != wanted:
        raise Malformed(f"it must hold {', '.join(sorted(wanted))} and nothing else")


def reason_text(text: str) -> str:
    """A reason in one line of at most LONGEST_TEXT characters that a terminal shows and does not obey."""
    return printable(" ".join(text.split())[:LONGEST_TEXT])[:LONGEST_TEXT]


def reply(to: Message, records: Content) -> Message:
    """A reply holding `records` by their names."""
    return Message(RecordDict(dict(records)), reply_to=to)
