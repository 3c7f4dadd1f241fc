"""What secure aggregation adds to the messages: named bytes, and digests of what hospitals agree on.

| message | record `secagg` of the server | record `secagg` of the hospital |
|---|---|---|
| `query.keys` | terms | key bundle |
| `query.shares` | bundles by name | sealed shares for the others |
| `train` | step of the ring; parcels by sender, until one round is answered | none |
| `query.consistent` | names of the survivors | signature |
| `query.unmask` | names of the survivors, signatures by name | shares that unmask the sum |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Container, Iterable, Mapping

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fl_ppae.config import RunConfig
from fl_ppae.messages import CONSISTENT, KEYS, SECAGG, SHARES, UNMASK, Malformed
from fl_ppae.secagg.dealing import dealing_size
from fl_ppae.secagg.identity import SIGNATURE
from fl_ppae.secagg.revealed import revealed_size
from fl_ppae.secagg.roster import bundle_size
from fl_ppae.secagg.terms import MAX_HOSPITALS, MAX_ROUNDS
from fl_ppae.secagg.wire import digest

_BLOCKS, _PEERS = range(1, MAX_ROUNDS + 1), range(2, MAX_HOSPITALS + 1)
SIZES: Mapping[str, Container[int]] = {
    KEYS: {bundle_size(rounds) for rounds in _BLOCKS},
    SHARES: {dealing_size(rounds, hospitals) for rounds in _BLOCKS for hospitals in _PEERS},
    CONSISTENT: {SIGNATURE},
    UNMASK: {revealed_size(hospitals) for hospitals in _PEERS},
}
"""How many bytes a hospital's answer can have, by the message's type."""


def data_record(data: bytes) -> ConfigRecord:
    """One string of bytes."""
    return ConfigRecord({"data": data})


def named_record(named: Mapping[str, bytes]) -> ConfigRecord:
    """Strings of bytes by hospital."""
    return ConfigRecord({"named": list(named), "values": list(named.values())})


def read_data(content: RecordDict) -> bytes:
    """The bytes of a `data_record`.

    Raises:
        Malformed: there are none.
    """
    data = _record(content).get("data")
    if not isinstance(data, bytes):
        raise Malformed("it holds no bytes for secure aggregation")
    return data


def read_named(content: RecordDict) -> dict[str, bytes]:
    """The bytes of a `named_record`, by hospital.

    Raises:
        Malformed: there are none, or a hospital is named twice.
    """
    record = _record(content)
    names, values = record.get("named"), record.get("values")
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    strings = isinstance(values, list) and all(isinstance(value, bytes) for value in values)
    if not (texts and strings) or not len(names) == len(values) == len(set(names)):  # type: ignore[arg-type]
        raise Malformed("it holds no bytes by hospital for secure aggregation")
    return dict(zip(names, values, strict=True))  # type: ignore[arg-type]


def read_survivors(content: RecordDict) -> tuple[str, ...]:
    """The names of the hospitals whose masked vectors arrived.

    Raises:
        Malformed: there are none.
    """
    names = _record(content).get("survivors")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Malformed("it names no survivors")
    return tuple(names)  # type: ignore[arg-type]


def read_step(content: RecordDict) -> float:
    """The step of the ring: a power of two.

    Raises:
        Malformed: it is none.
    """
    step = _record(content).get("step")
    if not isinstance(step, float) or not 0 < step < np.inf or np.frexp(step)[0] != 0.5:
        raise Malformed("the step of the ring is no power of two")
    return step


def config_digest(config: RunConfig) -> bytes:
    """32 bytes that stand for every key that a run keeps when it is interrupted and resumed."""
    return digest("config", json.dumps(config.lasting(), sort_keys=True).encode())


def training_digest(step: float, arrays: Iterable[tuple[str, np.ndarray]]) -> bytes:
    """32 bytes that stand for what a round starts from: the ring's step and float32 weights, by name."""
    fields = [field for name, array in arrays for field in (name.encode(), _bits(array))]
    return digest("training", struct.pack("<d", step), *fields)


def _bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()


def _record(content: RecordDict) -> ConfigRecord:
    return content.config_records.get(SECAGG, ConfigRecord())
