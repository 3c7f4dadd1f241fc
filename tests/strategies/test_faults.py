"""A round with a faulty reply is, bit for bit, the round of the honest hospitals alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faulty_replies import OF_UPDATES, changed
from flwr.app import Message
from scripted_replies import SHAPES, Server, events, failure, reply, sent, update

from fl_ppae.messages import LONGEST_TEXT
from strategies.server_ledger import ACTIVE, EXCLUDED

FAULTY = 1  # the hospital's number
Answers = Callable[[Message, Message], list[Message]]
"""What arrives instead of an honest reply to a question."""


def forged(kind: str) -> Answers:
    def answers(question: Message, honest: Message) -> list[Message]:
        return [sent(Message(changed(honest.content, OF_UPDATES[kind]), reply_to=question), question)]

    return answers


def from_a_stranger(question: Message, honest: Message) -> list[Message]:
    honest.metadata.__dict__["_src_node_id"] = 5
    return [honest]


UNANSWERED: dict[str, Answers] = {
    "it raises": lambda question, honest: [failure(question)],
    "silence": lambda question, honest: [],
    "a reply from another node": from_a_stranger,
}


def round_of(server: Server, server_round: int, answers: Answers | None) -> bytes:
    """The bits of a round's result, in which `FAULTY` answers as told; None: it is not there."""
    before = tuple(range(1, server_round))
    replies: list[Message] = []
    for question in server.ask(server_round):
        number = 1000 - question.metadata.dst_node_id
        honest = reply(question, update(10 * server_round + number), claimed=events(*before, server_round))
        if number != FAULTY:
            replies.append(honest)
        elif answers is not None:
            replies += answers(question, honest)
    found = server.take(replies, server_round)
    assert found is not None
    return b"".join(found[name].tobytes() for name in SHAPES)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("aggregation", ["average", "median"])
@pytest.mark.parametrize("kind", OF_UPDATES)
def test_a_faulty_reply_changes_no_bit_and_its_hospital_is_excluded_with_a_reason(
    kind: str, aggregation: str
) -> None:
    server, others = Server(), Server()
    server.strategy.aggregation = others.strategy.aggregation = aggregation
    assert round_of(server, 1, forged(kind)) == round_of(others, 1, None)
    found = server.reports[-1].replies[f"hospital-{FAULTY}"]
    assert found.status == EXCLUDED
    assert 0 < len(found.reason) <= LONGEST_TEXT
    assert found.reason.isprintable()
    assert not Path("left_by_pickle").exists(), "nothing was unpickled"
    assert round_of(server, 2, None) == round_of(others, 2, None), "the next round goes on"


@pytest.mark.parametrize("aggregation", ["average", "median"])
def test_the_control_that_an_honest_reply_changes_bits(aggregation: str) -> None:
    server, others = Server(), Server()
    server.strategy.aggregation = others.strategy.aggregation = aggregation
    honest = round_of(server, 1, lambda question, honest: [honest])
    assert honest != round_of(others, 1, None)
    assert server.status(f"hospital-{FAULTY}") == "trained"


@pytest.mark.parametrize("kind", UNANSWERED)
def test_a_hospital_without_an_answer_is_missing_from_that_round_alone(kind: str) -> None:
    server, others = Server(), Server()
    assert round_of(server, 1, UNANSWERED[kind]) == round_of(others, 1, None)
    assert server.status(f"hospital-{FAULTY}") == "failed"
    assert server.reports[-1].replies[f"hospital-{FAULTY}"].reason
    assert server.server_ledger.accounts[f"hospital-{FAULTY}"].status == ACTIVE
    assert len(server.ask(2)) == 4


def test_an_answer_to_an_old_round_is_excluded_and_changes_no_bit() -> None:
    kept: list[Message] = []

    def honest(_question: Message, honest: Message) -> list[Message]:
        kept.append(copy.deepcopy(honest))
        return [honest]

    def old(_question: Message, _honest: Message) -> list[Message]:
        return kept

    server, others = Server(), Server()
    assert round_of(server, 1, honest) == round_of(others, 1, honest)
    assert round_of(server, 2, old) == round_of(others, 2, None)
    assert server.status(f"hospital-{FAULTY}") == EXCLUDED
    assert "without an event" in server.reports[-1].replies[f"hospital-{FAULTY}"].reason


def test_of_two_answers_the_first_counts_bit_for_bit() -> None:
    def twice(question: Message, honest: Message) -> list[Message]:
        other = reply(question, {name: np.full(shape, 9, np.float32) for name, shape in SHAPES.items()})
        return [honest, other]

    server, others = Server(), Server()
    assert round_of(server, 1, twice) == round_of(others, 1, lambda _question, honest: [honest])


def test_below_min_hospitals_a_faulty_reply_leaves_the_round_uncombined_with_a_reason() -> None:
    server = Server()
    server.strategy.min_hospitals = 4
    questions = server.ask()
    replies = [reply(question, update(1)) for question in questions[:3]]
    (bad,) = forged("NaN")(questions[3], reply(questions[3], update(1)))
    assert server.take([*replies, bad]) is None
    assert server.reports[-1].not_combined == "3 updates, fewer than min-hospitals = 4"
