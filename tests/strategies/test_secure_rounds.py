"""Masked rounds over Flower's messages: the sum of the honest, or none, and a reason for each left out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from masked_federation import LATE, STEP, Federation, error, lost, plain_round, replaced, with_record

from fl_ppae import messages
from fl_ppae.messages import ARRAYS, CLAIM, CONSISTENT, KEYS, MASKED, SECAGG, SHARES, TRAIN, UNMASK
from fl_ppae.secure_messages import data_record

THREE = {"min_hospitals": 3}
PHASES = [KEYS, SHARES, TRAIN, CONSISTENT, UNMASK]
IN_THE_SUM = (CONSISTENT, UNMASK)  # who is lost there was added up before


def test_a_masked_round_is_the_plain_average_within_the_stated_error(
    tmp_path: Path, of_all: dict[str, np.ndarray]
) -> None:
    federation = Federation(tmp_path / "masked")
    before = federation.weights
    assert federation.round()
    federation.check_close(of_all)
    assert federation.moved(before) > 1e-4, "the control"
    assert {reply.reason for reply in federation.reports[-1].replies.values()} == {""}


def test_a_masked_round_of_one_step_moves_the_weights_as_a_plain_one(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", hospitals=2, **STEP)
    assert federation.round()
    expected = plain_round(tmp_path / "plain", hospitals=2, **STEP)
    for name, value in federation.weights.items():
        # Adam's first step has the gradient's sign, so where the gradient is nearly 0, rounding can turn it.
        assert np.mean(np.abs(value - expected[name]) > 1e-6) < 1e-3


@pytest.mark.parametrize("phase", PHASES)
def test_a_hospital_that_is_lost_in_any_phase_leaves_the_sum_of_the_others(
    tmp_path: Path, of_all: dict[str, np.ndarray], of_the_others: dict[str, np.ndarray], phase: str
) -> None:
    federation = Federation(tmp_path / "masked", tamper=lost((phase, LATE)), **THREE)
    assert federation.round()
    federation.check_close(of_all if phase in IN_THE_SUM else of_the_others)
    assert "no reply in time" in federation.reason(LATE)
    assert {federation.reason(name) for name in federation.nodes if name != LATE} == {""}


@pytest.mark.parametrize("phase", PHASES)
def test_below_min_hospitals_nobody_unmasks_and_the_weights_stay(tmp_path: Path, phase: str) -> None:
    federation = Federation(tmp_path / "masked", tamper=lost((phase, LATE), (phase, "hospital-2")), **THREE)
    before = federation.weights
    assert not federation.round()
    assert federation.moved(before) == 0
    assert all(federation.reason(name) for name in federation.nodes), "each has a reason"
    unmasked = [name for kind, name, _, _ in federation.network.carried if kind == UNMASK]
    assert unmasked == [] or phase == UNMASK
    paid = {len(federation.events(name)) for name in federation.nodes}
    assert paid == ({0} if phase in (KEYS, SHARES) else {1} if phase != TRAIN else {0, 1})
    federation.network.tamper = None
    assert federation.round(2), "the next round goes on with all"
    assert federation.reason(LATE) == ""


def cut(_question: Message, reply: Message) -> Message:
    return with_record(reply, SECAGG, data_record(reply.content[SECAGG]["data"][:-1]))


def flipped(_question: Message, reply: Message) -> Message:
    data = bytearray(reply.content[SECAGG]["data"])
    data[len(data) // 2] ^= 1
    return with_record(reply, SECAGG, data_record(bytes(data)))


def text(_question: Message, reply: Message) -> Message:
    return with_record(reply, SECAGG, ConfigRecord({"data": "bytes"}))


def declining(_question: Message, reply: Message) -> Message:
    claim = ConfigRecord({**reply.content[CLAIM], "status": "declined", "reason": "not today"})
    return with_record(reply, CLAIM, claim)


@pytest.mark.parametrize(
    ("phase", "forge"),
    [
        *((phase, cut) for phase in (KEYS, SHARES, CONSISTENT, UNMASK)),
        *((phase, flipped) for phase in (KEYS, CONSISTENT, UNMASK)),
        (KEYS, error),
        (SHARES, declining),
        (CONSISTENT, text),
    ],
)
def test_a_wrong_reply_in_any_phase_is_left_out_by_name(
    tmp_path: Path,
    of_all: dict[str, np.ndarray],
    of_the_others: dict[str, np.ndarray],
    phase: str,
    forge: Callable[[Message, Message], Message],
) -> None:
    federation = Federation(tmp_path / "masked", tamper=replaced(phase, LATE, forge), **THREE)
    assert federation.round()
    federation.check_close(of_all if phase in IN_THE_SUM else of_the_others)
    assert federation.reason(LATE)
    assert {federation.reason(name) for name in federation.nodes if name != LATE} == {""}


def all_parcels_spoilt(_question: Message, reply: Message) -> Message:
    data = bytearray(reply.content[SECAGG]["data"])
    rounds, others = 2, 3
    parcel = rounds * 2 * 32 + 16
    for start in range(0, others * parcel, parcel):
        data[start] ^= 1
    return with_record(reply, SECAGG, data_record(bytes(data)))


def test_a_hospital_whose_shares_are_of_no_use_costs_one_round_and_is_then_left_out(
    tmp_path: Path, of_the_others: dict[str, np.ndarray]
) -> None:
    tamper = replaced(SHARES, LATE, all_parcels_spoilt)
    federation = Federation(tmp_path / "masked", tamper=tamper, **THREE)
    before = federation.weights
    assert not federation.round(1)
    assert federation.moved(before) == 0
    assert "right shares of its secret" in federation.reason(LATE)
    assert federation.round(2)
    assert "wrong shares" in federation.reason(LATE)
    assert {federation.reason(name) for name in federation.nodes if name != LATE} == {""}


def of_floats(_question: Message, reply: Message) -> Message:
    array = Array(reply.content[ARRAYS][MASKED].numpy().astype(np.float32))
    return with_record(reply, ARRAYS, ArrayRecord({MASKED: array}))


def shorter(_question: Message, reply: Message) -> Message:
    return with_record(reply, ARRAYS, ArrayRecord({MASKED: Array(reply.content[ARRAYS][MASKED].numpy()[1:])}))


def in_the_clear(_question: Message, reply: Message) -> Message:
    return with_record(reply, ARRAYS, ArrayRecord({"2.weight": Array(np.zeros((16, 784), np.float32))}))


@pytest.mark.parametrize("forge", [error, of_floats, shorter, in_the_clear])
def test_a_wrong_vector_is_excluded_and_the_sum_of_the_others_is_right(
    tmp_path: Path, of_the_others: dict[str, np.ndarray], forge: Callable[[Message, Message], Message]
) -> None:
    federation = Federation(tmp_path / "masked", tamper=replaced(TRAIN, LATE, forge), **THREE)
    assert federation.round()
    federation.check_close(of_the_others)
    assert federation.reason(LATE)


def test_a_hospital_that_missed_a_round_is_back_in_the_next_one_of_the_same_block(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", tamper=lost((TRAIN, LATE)), **THREE)
    assert federation.round(1)
    federation.network.tamper = None
    assert federation.round(2)
    assert federation.reason(LATE) == ""
    kinds = [kind for kind, _, _, _ in federation.network.carried]
    assert kinds.count(KEYS) == 4, "no new block was opened for it"


def test_a_hospital_that_lost_its_keys_is_absent_until_the_next_block_and_pays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.secure_rounds.MAX_ROUNDS", 2)
    federation = Federation(tmp_path / "masked", num_server_rounds=3, **THREE, **STEP)
    assert federation.round(1)
    for kept in federation.directory(LATE).glob("secagg-*.state"):
        kept.unlink()
    assert federation.round(2)
    assert "no keys" in federation.reason(LATE)
    assert federation.round(3)
    assert federation.reason(LATE) == ""
    charged = [event.round for event in federation.ledger.accounts[LATE].charges]
    assert charged == [event.round for event in federation.events(LATE)] == [1, 3]


def test_blocks_follow_each_other_and_never_reach_beyond_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.secure_rounds.MAX_ROUNDS", 2)
    federation = Federation(tmp_path / "masked", hospitals=2, num_server_rounds=3, **STEP)
    assert all(federation.round(number) for number in (1, 2, 3))
    kinds = [kind for kind, name, _, _ in federation.network.carried if name == "hospital-0"]
    block = [KEYS, SHARES, TRAIN, CONSISTENT, UNMASK]
    assert kinds == [*block, TRAIN, CONSISTENT, UNMASK, *block]


@pytest.mark.parametrize("kind", PHASES)
def test_a_message_that_comes_again_is_declined_and_costs_nothing(tmp_path: Path, kind: str) -> None:
    federation = Federation(tmp_path / "masked")
    assert federation.round()
    paid = federation.events(LATE)
    question, first = federation.sent(kind, LATE)
    again = federation.ask(LATE, kind, copy.deepcopy(question.content))
    assert set(again.content) == {CLAIM}
    assert again.content[CLAIM]["status"] == ("absent" if kind == TRAIN else "declined")
    assert federation.events(LATE) == paid
    assert set(first.content) > {CLAIM}, "the control: the first time, it was answered"


def test_what_the_server_receives_does_not_show_an_update(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", hospitals=2)
    assert federation.round()
    for name in federation.nodes:
        vector = federation.sent(TRAIN, name)[1].content[ARRAYS][MASKED].numpy()
        high = np.bincount(vector >> 28, minlength=16)
        assert np.abs(high / len(vector) - 1 / 16).max() < 5 / np.sqrt(16 * len(vector)), "uniform"
    two = [federation.sent(TRAIN, name)[1].content[ARRAYS][MASKED].numpy() for name in federation.nodes]
    unmasked = (two[0] + two[1]) >> 28
    assert np.bincount(unmasked, minlength=16).max() < 0.1 * len(unmasked), "own masks hide the sum too"


def test_a_masked_reply_holds_its_number_of_records_and_a_claim_and_no_more(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "masked", hospitals=2)
    assert federation.round()
    for kind, _name, _question, reply in federation.network.carried:
        wanted = {CLAIM, messages.METRICS, ARRAYS} if kind == TRAIN else {CLAIM, SECAGG}
        assert set(reply.content) == wanted
        for metrics in reply.content.metric_records.values():
            assert metrics == MetricRecord({messages.RECORDS: 36})
