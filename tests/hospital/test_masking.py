"""A hospital's part in masked rounds: it holds to its own configuration, and declining costs nothing."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from masked_federation import Federation, lost

from fl_ppae import client_app, messages
from fl_ppae.messages import CLAIM, CONFIG, CONSISTENT, KEYS, SECAGG, SHARES, TRAIN, UNMASK
from fl_ppae.secagg.identity import load_or_make
from fl_ppae.secagg.state import State
from fl_ppae.secagg.terms import Terms
from fl_ppae.secure_messages import data_record

ASKED = "hospital-1"
TERMS: list[dict[str, Any]] = [
    {"run": "another"},
    {"names": ("hospital-1", "hospital-0", "hospital-2")},
    {"names": ("hospital-0", "hospital-1", "hospital-2", "hospital-3")},
    {"names": ("hospital-0", "hospital-1"), "min_hospitals": 2},
    {"min_hospitals": 2},
    {"config": bytes(32)},
    {"rounds": 3},
    {"first_round": 2, "rounds": 2},
]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Three hospitals that have dealt their shares; nobody has trained."""
    made = Federation(tmp_path / "masked", hospitals=3)
    made.network.tamper = lost(*((TRAIN, name) for name in made.nodes))
    assert not made.round()
    made.network.tamper = None
    return made


def check_declined(federation: Federation, reply: Message, *words: str) -> None:
    assert not reply.has_error()
    assert set(reply.content) == {CLAIM}
    claim = reply.content[CLAIM]
    assert claim["status"] in ("declined", "absent")
    assert all(word in claim["reason"] for word in words), claim["reason"]
    assert federation.events(ASKED) == ()


def train_message(federation: Federation) -> RecordDict:
    (question,) = (
        one
        for one in federation.strategy.configure_train(
            1, federation.arrays, ConfigRecord({"run-directory": str(federation.folder)}), federation.network
        )
        if one.metadata.dst_node_id == federation.nodes[ASKED]
    )
    return copy.deepcopy(question.content)


@pytest.mark.parametrize("changes", TERMS, ids=str)
def test_terms_that_its_own_configuration_does_not_make_are_declined(
    federation: Federation, changes: dict[str, Any]
) -> None:
    question, _ = federation.sent(KEYS, ASKED)
    content = copy.deepcopy(question.content)
    terms = Terms.unpack(content[SECAGG]["data"])
    content[SECAGG] = data_record(replace(terms, **changes).pack())
    check_declined(federation, federation.ask(ASKED, KEYS, content))
    assert set(federation.ask(ASKED, KEYS, question.content).content) == {CLAIM, SECAGG}, "the control"


@pytest.mark.parametrize("step", [0.3, 0.0, None])
def test_a_round_in_another_ring_is_declined(federation: Federation, step: float | None) -> None:
    content = train_message(federation)
    record = {key: value for key, value in content[SECAGG].items() if key != "step"}
    content[SECAGG] = ConfigRecord(record if step is None else {**record, "step": step})
    check_declined(federation, federation.ask(ASKED, TRAIN, content), "power of two")


def test_a_round_without_parcels_is_declined_and_with_them_it_is_trained(federation: Federation) -> None:
    content = train_message(federation)
    bare = copy.deepcopy(content)
    bare[SECAGG] = ConfigRecord({"step": content[SECAGG]["step"]})
    check_declined(federation, federation.ask(ASKED, TRAIN, bare))
    assert federation.ask(ASKED, TRAIN, content).content[CLAIM]["status"] == "trained"
    assert len(federation.events(ASKED)) == 1


def test_a_hospital_that_was_asked_for_no_keys_declines_everything_else(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", hospitals=3)
    where = ConfigRecord({"run-directory": str(federation.folder), "server-round": 1})
    for kind in (SHARES, CONSISTENT, UNMASK):
        record = ConfigRecord({"named": ["hospital-0"], "values": [b""], "survivors": ["hospital-0"]})
        reply = federation.ask(ASKED, kind, RecordDict({CONFIG: where, SECAGG: record}))
        check_declined(federation, reply, "no keys")


@pytest.mark.parametrize("kind", [KEYS, SHARES, CONSISTENT, UNMASK])
def test_a_message_without_its_bytes_is_declined(federation: Federation, kind: str) -> None:
    where = ConfigRecord({"run-directory": str(federation.folder), "server-round": 1})
    check_declined(federation, federation.ask(ASKED, kind, RecordDict({CONFIG: where})))
    check_declined(
        federation, federation.ask(ASKED, kind, RecordDict({CONFIG: where, SECAGG: data_record(b"?")}))
    )


def test_a_run_without_masks_answers_no_message_of_theirs(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "plain", hospitals=3, protection="none")
    where = ConfigRecord({"run-directory": str(federation.folder)})
    for kind in (KEYS, SHARES, CONSISTENT, UNMASK):
        reply = federation.ask(ASKED, kind, RecordDict({CONFIG: where, SECAGG: data_record(b"?")}))
        check_declined(federation, reply, 'protection = "none"')


def test_a_new_signing_key_of_a_known_hospital_is_declined(tmp_path: Path) -> None:
    """As if the server stood in for it; the others had pinned the key that they met first."""
    federation = Federation(tmp_path / "masked", hospitals=3, num_server_rounds=2)
    assert federation.round(1)
    (federation.directory("hospital-2") / "signing_key.pem").unlink()
    federation.strategy.secure._block = None  # the server opens another block
    assert not federation.round(2)
    assert "another signing key" in federation.reason(ASKED)


def test_where_no_new_keys_are_allowed_only_pinned_hospitals_are_dealt_shares(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", hospitals=3, node={"allow-new-keys": False})
    assert not federation.round(1)
    assert "not among the hospitals whose keys this one knows" in federation.reason(ASKED)
    keys = {name: load_or_make(federation.directory(name) / "signing_key.pem") for name in federation.nodes}
    for name in federation.nodes:
        pins = {other: key.public.hex() for other, key in keys.items()}
        (federation.directory(name) / "pins.json").write_text(json.dumps(pins))
    assert federation.round(2)


def test_a_hospital_that_fails_after_it_masked_never_answers_the_round_again(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is on its disk before the answer leaves."""
    content = train_message(federation)
    reply, calls = messages.reply, []

    def failing(*arguments: Any) -> Message:
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("the network is gone")
        return reply(*arguments)

    monkeypatch.setattr(client_app.messages, "reply", failing)
    assert federation.ask(ASKED, TRAIN, copy.deepcopy(content)).has_error()
    paid = federation.events(ASKED)
    assert len(paid) == 1
    again = federation.ask(ASKED, TRAIN, content)
    assert again.content[CLAIM]["status"] == "absent"
    assert "already answered" in again.content[CLAIM]["reason"]
    assert federation.events(ASKED) == paid


def test_what_it_keeps_is_for_its_owner_alone_and_lasts_from_message_to_message(
    federation: Federation,
) -> None:
    folder = federation.directory(ASKED)
    kept = [folder / "signing_key.pem", *folder.glob("secagg-*.state")]
    assert len(kept) == 2
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}
    assert (folder / "pins.json").exists()


def kept_state(federation: Federation) -> State:
    (path,) = federation.directory(ASKED).glob("secagg-*.state")
    return State.unpack(path.read_bytes())


def test_after_the_last_round_no_secret_of_a_run_is_on_the_disk(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", hospitals=3, num_server_rounds=2)
    assert federation.round(1)
    assert any(kept_state(federation).secrets), "the control: round 2 is still to come"
    assert federation.round(2)
    state = kept_state(federation)
    assert not any(state.secrets) and not state.channel
    assert state.shares and not any(any(share) for share in state.shares.values())
    assert state.answered.round == 2


@pytest.mark.parametrize("silent_hours", [12, 25])
def test_secrets_of_a_run_that_broke_off_are_erased_when_another_begins_a_day_later(
    federation: Federation, silent_hours: int
) -> None:
    (path,) = federation.directory(ASKED).glob("secagg-*.state")
    abandoned = path.with_name("secagg-abandoned.state")
    abandoned.write_bytes(path.read_bytes())
    (path.parent / "secagg-damaged.state").write_bytes(b"?")
    for one in path.parent.glob("secagg-*.state"):
        os.utime(one, (0, time.time() - 3600 * silent_hours))
    question, _ = federation.sent(KEYS, ASKED)
    assert set(federation.ask(ASKED, KEYS, question.content).content) == {CLAIM, SECAGG}
    erased = not any(State.unpack(abandoned.read_bytes()).secrets)
    assert erased == (silent_hours > 24)
