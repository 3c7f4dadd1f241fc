"""A hospital that fails tells the server nothing but that; its own log has the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from hospital.asked import AskedHospital
from support import Run

from fl_ppae import client_app
from fl_ppae.hospital import updates
from fl_ppae.hospital.failures import FAILED
from fl_ppae.messages import ENROL, TRAIN

SECRET = "row 17 of /srv/patients.npz has mean 0.3712"


@pytest.fixture
def hospital(tmp_path: Path) -> AskedHospital:
    return AskedHospital(tmp_path / "a")


def raising(problem: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise problem

    return fail


def check_tells_nothing(reply: Message, log: Path, cause: str) -> None:
    assert reply.has_error()
    assert reply.error.reason == FAILED
    written = log.read_text()
    assert cause in written
    assert "Traceback" in written


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyError, ValueError, AssertionError])
def test_an_exception_of_a_deployed_hospital_stays_there(
    hospital: AskedHospital, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    monkeypatch.setattr(updates, "train_round", raising(kind(SECRET)))
    reply = hospital.ask(TRAIN, hospital.honest(TRAIN))
    check_tells_nothing(reply, hospital.state / "errors.log", SECRET)
    assert len(hospital.events) == 1, "it had paid"


def test_a_reply_that_is_stopped_stays_there_with_its_reason(
    hospital: AskedHospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(message: Message, content: Any) -> Message:
        return Message(RecordDict({**content, SECRET: content["claim"]}), reply_to=message)

    monkeypatch.setattr(client_app.messages, "reply", leaking)
    reply = hospital.ask(ENROL, RecordDict())
    check_tells_nothing(reply, hospital.state / "errors.log", SECRET)


def test_a_data_file_or_a_ledger_that_is_gone_or_damaged_is_named_in_the_log_alone(
    hospital: AskedHospital,
) -> None:
    hospital.train_all()
    ledger, log = hospital.state / "ledger.jsonl", hospital.state / "errors.log"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole.replace(b'"steps": 1', b'"steps": 0', 1))
    check_tells_nothing(hospital.ask(TRAIN, hospital.honest(TRAIN)), log, "was altered")
    ledger.write_bytes(whole)
    hospital.data.unlink()
    check_tells_nothing(hospital.ask(TRAIN, hospital.honest(TRAIN)), log, "secret-patients.npz")


def test_a_log_that_cannot_be_written_changes_nothing(
    hospital: AskedHospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hospital.state / "errors.log").mkdir(parents=True)
    monkeypatch.setattr(updates, "train_round", raising(RuntimeError(SECRET)))
    reply = hospital.ask(TRAIN, hospital.honest(TRAIN))
    assert reply.has_error()
    assert reply.error.reason == FAILED


def test_a_cause_that_is_not_utf8_is_logged_and_still_answered(
    hospital: AskedHospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "train_round", raising(RuntimeError("Universit\udce9.npz")))
    reply = hospital.ask(TRAIN, hospital.honest(TRAIN))
    check_tells_nothing(reply, hospital.state / "errors.log", r"Universit\udce9.npz")


def test_a_mistake_in_the_configuration_is_told(tmp_path: Path) -> None:
    """Its text depends on the configuration and on the number of records, which is public."""
    small = AskedHospital(tmp_path / "small", min_records=1000)
    assert "has 117 records, fewer than min-records = 1000" in small.ask(ENROL, RecordDict()).error.reason
    unfit = AskedHospital(tmp_path / "unfit", target_delta=0.1)
    assert "target-delta = 0.1 is not below 1/records" in unfit.ask(ENROL, RecordDict()).error.reason


def test_a_simulated_hospital_tells_the_user_why_it_failed(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "train_round", raising(MemoryError("out of memory")))
    with pytest.raises(RuntimeError, match="hospital-0 failed: MemoryError: out of memory"):
        federate("run")


def test_a_simulated_hospital_keeps_a_log_too(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client_app, "terms_of", raising(MemoryError("out of memory")))
    with pytest.raises(ValueError, match=r"could not answer query\.enrol: MemoryError: out of memory"):
        federate("run")
    assert "Traceback" in (tmp_path / "run" / "hospitals" / "hospital-2" / "errors.log").read_text()
