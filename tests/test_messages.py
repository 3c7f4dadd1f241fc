"""What leaves a hospital in real runs, and which claims the server reads."""

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from support import Run

from fl_ppae import messages
from fl_ppae.config import RunConfig
from fl_ppae.messages import (
    ARRAYS,
    CLAIM,
    ENCODINGS,
    ENROL,
    EVALUATE,
    HELLO,
    METRICS,
    TRAIN,
    Claim,
    Malformed,
)
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.simulation.in_process import InProcessGrid

ENROL_KEYS = {"hospital", "status", "reason", "records", "test-records", "round", "events", "chain"}


class Listening(InProcessGrid):
    """A grid that keeps every reply it carried."""

    carried: list[tuple[Message, Message]]

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        self.carried.append((message, reply))
        return reply


def expected_records(question: Message, config: RunConfig) -> dict[str, set[str]]:
    """Record name to its keys, for the reply to `question`: the design's table, written out again."""
    measured = {"loss", "clipped-fraction", "signal-to-noise"} if config.diagnostics else set()
    loss = {"loss"} if config.diagnostics else set()
    kind = question.metadata.message_type
    expected = {
        HELLO: {CLAIM: {"hospital", "index", "hospitals", "deployed"}},
        ENROL: {CLAIM: ENROL_KEYS},
        TRAIN: {
            CLAIM: {"hospital", "status", "reason", "events", "epsilon", "chain"},
            METRICS: {"num-examples", *measured},
        },
        ENCODINGS: {
            CLAIM: {"hospital", "status", "reason", "chunks", "events", "chain"},
            ARRAYS: {"encodings"},
        },
        EVALUATE: {CLAIM: {"hospital"}, METRICS: {"num-examples", *loss}},
    }[kind]
    if kind == TRAIN and config.shares_updates:
        expected[ARRAYS] = set(question.content[ARRAYS])  # the encoder that the server sent
    if kind == ENCODINGS and question.content["config"]["part"] == "train":
        expected[ARRAYS] = {"encodings", "labels"}
    return expected


@pytest.mark.parametrize("share", ["updates", "encodings", "updates+encodings"])
@pytest.mark.parametrize(
    ("objective", "diagnostics"), [("reconstruction", False), ("task", False), ("reconstruction", True)]
)
def test_nothing_leaves_a_hospital_but_what_is_listed(
    federate: Callable[..., Run],
    small: Callable[..., RunConfig],
    share: str,
    objective: str,
    diagnostics: bool,
) -> None:
    options = {"share": share, "objective": objective, "diagnostics": diagnostics}
    carried: list[tuple[Message, Message]] = []
    grid = type("Recorder", (Listening,), {"carried": carried})
    run = federate("run", grid=grid, **options)
    config = small(**options)
    for question, reply in carried:
        content = reply.content
        found = {name: set(record) for name, record in content.items()}
        assert found == expected_records(question, config), question.metadata.message_type
        for record in [*content.config_records.values(), *content.metric_records.values()]:
            for key, value in record.items():
                assert isinstance(value, (bool, int, float, str)), f"{key} is no single value"
        for arrays in content.array_records.values():
            shapes = {name: array.numpy().shape for name, array in arrays.items()}
            if question.metadata.message_type == TRAIN:
                assert sorted(shapes.values()) == [(16,), (16, 784)]
            else:
                records = shapes["encodings"][0]
                assert shapes["encodings"] == (records, 16)
                assert shapes.get("labels", (records,)) == (records,)
    kinds = {question.metadata.message_type for question, _ in carried}
    assert kinds == {HELLO, ENROL, TRAIN} | ({ENCODINGS} if share != "updates" else set()) | (
        {EVALUATE} if diagnostics else set()
    )
    assert run.summary["status"] == "completed"


def claim_of(**changes: Any) -> Claim:
    values = {
        "status": "trained",
        "reason": "",
        "events": (PoissonGaussian(1.5, 0.25, 4, 1),),
        "epsilon": 2.0,
    }
    return Claim(hospital="hospital-0", **{**values, **changes})


@pytest.mark.parametrize("epsilon", [2.5, float("inf")])
def test_a_claim_is_read_as_it_was_written(epsilon: float) -> None:
    claim = claim_of(epsilon=epsilon)
    assert messages.read_claim(RecordDict({CLAIM: messages.claim_record(claim)})) == claim


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "excellent"},
        {"status": ["trained"]},
        {"chain": "a" * 15},
        {"chain": "A" * 16},
        {"chain": 1},
        {"events": "not JSON"},
        {"events": "5"},
        {"events": "[5]"},
        {"events": "null"},
        {"events": '[{"steps": 1}]'},
        {"events": messages.events_text(claim_of().events).replace("1.5", "-1.5")},
        {"events": messages.events_text(claim_of().events).replace("1.5", "1" + "0" * 400)},
        {"events": "[" * 100_000},
        {"epsilon": "much"},
        {"epsilon": [1.0]},
        {"epsilon": float("nan")},
        {"more": 1},
    ],
    ids=lambda wrong: "-".join([*wrong, str(next(iter(wrong.values())))[:12]]),
)
def test_a_malformed_claim_is_malformed_and_no_crash(wrong: dict[str, Any]) -> None:
    record = messages.claim_record(claim_of())
    for key, value in wrong.items():
        record[key] = value
    with pytest.raises(Malformed):
        messages.read_claim(RecordDict({CLAIM: record}))


def test_a_missing_claim_is_malformed() -> None:
    with pytest.raises(Malformed):
        messages.read_claim(RecordDict())
