"""What secure aggregation says in messages is read as it was written, and anything else is malformed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from fl_ppae.config import RunConfig
from fl_ppae.messages import SECAGG, Malformed
from fl_ppae.secure_messages import (
    config_digest,
    data_record,
    named_record,
    read_data,
    read_named,
    read_step,
    read_survivors,
    training_digest,
)


def content(record: ConfigRecord | dict[str, Any]) -> RecordDict:
    return RecordDict({SECAGG: record if isinstance(record, ConfigRecord) else ConfigRecord(record)})


def test_bytes_are_read_as_they_were_written() -> None:
    assert read_data(content(data_record(b"\0\xff"))) == b"\0\xff"
    named = {"hospital-1": b"1", "hospital-0": b""}
    assert read_named(content(named_record(named))) == named
    assert read_survivors(content({"survivors": ["b", "a"]})) == ("b", "a")
    assert read_step(content({"step": 2.0**-30})) == 2.0**-30


@pytest.mark.parametrize("record", [{}, {"data": "text"}, {"data": 1}, {"data": [b"1"]}])
def test_no_bytes_are_malformed(record: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read_data(content(record))


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"named": ["a"]},
        {"values": [b"1"]},
        {"named": ["a", "b"], "values": [b"1"]},
        {"named": ["a", "a"], "values": [b"1", b"2"]},
        {"named": [1], "values": [b"1"]},
        {"named": ["a"], "values": ["1"]},
        {"named": "a", "values": [b"1"]},
    ],
)
def test_bytes_that_are_not_by_hospital_are_malformed(record: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read_named(content(record))


@pytest.mark.parametrize("step", [None, 1, "1", 0.0, -0.5, 0.3, float("nan"), float("inf"), [0.5]])
def test_a_step_that_is_no_power_of_two_is_malformed(step: Any) -> None:
    with pytest.raises(Malformed):
        read_step(content({} if step is None else {"step": step}))


@pytest.mark.parametrize("names", [None, "a", [1, 2], b"a"])
def test_survivors_that_are_no_names_are_malformed(names: Any) -> None:
    with pytest.raises(Malformed):
        read_survivors(content({} if names is None else {"survivors": names}))


def test_a_digest_of_training_covers_step_names_values_and_their_order() -> None:
    arrays = [("a", np.arange(4, dtype=np.float32)), ("b", np.zeros(2, np.float32))]
    digests = {
        training_digest(0.5, arrays),
        training_digest(0.25, arrays),
        training_digest(0.5, arrays[:1]),
        training_digest(0.5, arrays[::-1]),
        training_digest(0.5, [("c", arrays[0][1]), arrays[1]]),
        training_digest(0.5, [("a", np.nextafter(arrays[0][1], np.float32(9))), arrays[1]]),
        training_digest(0.5, [("a", arrays[0][1][:3]), ("b", np.zeros(3, np.float32))]),
    }
    assert len(digests) == 7
    assert training_digest(0.5, [(name, array.copy()) for name, array in arrays]) in digests


def test_a_digest_of_a_configuration_covers_every_key() -> None:
    base = RunConfig.from_flat({})
    others = [base.model_copy(update={"seed": 1}), base.model_copy(update={"max_grad_norm": 0.002})]
    assert len({config_digest(config) for config in (base, *others)}) == 3
    assert config_digest(RunConfig.from_flat(base.to_flat())) == config_digest(base)
