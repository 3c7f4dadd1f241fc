"""What may be wrong with a hospital's reply: each fault changes the content of an honest one."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hospital.asked import extra_records, hostile_arrays

from fl_ppae import messages
from fl_ppae.messages import ARRAYS, CLAIM, METRICS
from fl_ppae.privacy.events import Unprotected

Fault = Callable[[RecordDict], None]


class Runs:
    """Unpickled, it makes the file `left_by_pickle` in the working directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("left_by_pickle").touch, ()


def of_arrays(change: Callable[[ArrayRecord, str], None]) -> Fault:
    """Changes the first of the arrays."""

    def fault(content: RecordDict) -> None:
        arrays = ArrayRecord(dict(content[ARRAYS]))
        change(arrays, next(iter(arrays)))
        content[ARRAYS] = arrays

    return fault


def replaced_by(make: Callable[[Array], Array]) -> Fault:
    return of_arrays(lambda arrays, name: arrays.update({name: make(arrays[name])}))


def filled(value: float) -> Fault:
    """One number of the first array is another one, as far as its type has that."""

    def make(honest: Array) -> Array:
        numbers = np.array(honest.numpy())
        numbers.flat[0] = value
        return Array(numbers)

    return replaced_by(make)


def pickled(honest: Array) -> Array:
    return Array(honest.dtype, honest.shape, honest.stype, pickle.dumps(Runs()))


def of_objects(honest: Array) -> Array:
    """A sound .npy of an object array, which numpy reads by unpickling it."""
    file = io.BytesIO()
    np.save(file, np.array([Runs()], object), allow_pickle=True)
    return Array(honest.dtype, honest.shape, honest.stype, file.getvalue())


def hostile(honest: Array, kind: str) -> Array:
    with np.errstate(over="ignore"):  # masked numbers as float16
        return hostile_arrays(honest)[kind]


def claiming(**changes: Any) -> Fault:
    """Changes values of the claim; None removes one."""

    def fault(content: RecordDict) -> None:
        claim = {**content[CLAIM], **changes}
        content[CLAIM] = ConfigRecord({key: value for key, value in claim.items() if value is not None})

    return fault


def measured(**changes: Any) -> Fault:
    def fault(content: RecordDict) -> None:
        named = {key.replace("_", "-"): value for key, value in changes.items()}
        content[METRICS] = MetricRecord({**content[METRICS], **named})

    return fault


def without(record: str) -> Fault:
    return lambda content: content.pop(record)


def with_more(content: RecordDict) -> None:
    content["images"] = extra_records()["images"]


ANOTHER_RUN = messages.events_text([Unprotected("updates", "none", "train", "run-b", 1)])
_OF_ARRAYS = ("shape", "empty", "integers", "half", "big-endian", "garbage", "nothing", "short", "long")

IN_ARRAYS: dict[str, Fault] = {
    **{
        kind: replaced_by(lambda honest, kind=kind: hostile(honest, kind))  # type: ignore[misc]
        for kind in (*_OF_ARRAYS, "complex", "bytes", "huge", "other kind")
    },
    "a pickle": replaced_by(pickled),
    "an array of objects": replaced_by(of_objects),
    "an array missing": of_arrays(lambda arrays, name: arrays.__delitem__(name)),
    "an array more": of_arrays(lambda arrays, name: arrays.update({"decoder": arrays[name]})),
}
"""Wrong in whatever arrays a reply holds."""

IN_FLOATS: dict[str, Fault] = {"NaN": filled(np.nan), "infinite": filled(np.inf)}

IN_CLAIM: dict[str, Fault] = {
    "another hospital's name": claiming(hospital="hospital-0"),
    "no name": claiming(hospital=""),
    "events of another run": claiming(events=ANOTHER_RUN),
    "no events": claiming(events="[]"),
    "events that are no JSON": claiming(events="[[["),
    "events nested too deeply": claiming(events="[" * 10**5),
    "a chain of no checksums": claiming(chain="../../etc"),
    "no claim": without(CLAIM),
    "a record that nobody asked for": with_more,
    "no arrays": without(ARRAYS),
}

IN_TRAINING: dict[str, Fault] = {
    "weights above the limit": filled(1e30),
    "an epsilon that is a text": claiming(epsilon="a lot " * 10**5),
    "a status that is unknown": claiming(status="\x1b[31m" + "trained " * 10**5),
    "a claim with a key more": claiming(records=10**9),
    "a claim with a key less": claiming(status=None),
    "a negative number of records": measured(num_examples=-3),
    "a number of records that is a fraction": measured(num_examples=0.5),
    "a metric more": measured(loss=0.1),
    "no metrics": without(METRICS),
}
"""Wrong in a reply to `train` alone."""

OF_UPDATES = {**IN_ARRAYS, **IN_FLOATS, **IN_CLAIM, **IN_TRAINING}


def changed(content: RecordDict, fault: Fault) -> RecordDict:
    """A copy of an honest reply's content with this fault."""
    copied = copy.deepcopy(content)
    fault(copied)
    return copied
