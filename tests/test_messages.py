"""What leaves a hospital: everything a real run sends, and what is stopped, at either end."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
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
    Leak,
    Malformed,
    Outgoing,
)
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.simulation.in_process import InProcessGrid

ENCODER = {"1.weight": (16, 784), "1.bias": (16,)}
ENROL_KEYS = {"hospital", "status", "reason", "records", "test-records", "events"}


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
            CLAIM: {"hospital", "status", "reason", "events", "epsilon"},
            METRICS: {"num-examples", *measured},
        },
        ENCODINGS: {CLAIM: {"hospital", "status", "reason", "chunks", "events"}, ARRAYS: {"encodings"}},
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


def allowed(**changes: Any) -> Outgoing:
    values = {"shares_updates": True, "shares_encodings": True, "diagnostics": False}
    return Outgoing(encoder=ENCODER, encoding=(16,), **{**values, **changes})


def zeros(shapes: dict[str, tuple[int, ...]], dtype: Any = np.float32) -> ArrayRecord:
    return ArrayRecord({name: Array(np.zeros(shape, dtype)) for name, shape in shapes.items()})


def claim_of(**changes: Any) -> Claim:
    values = {
        "status": "trained",
        "reason": "",
        "events": (PoissonGaussian(1.5, 0.25, 4, 1),),
        "epsilon": 2.0,
    }
    return Claim(hospital="hospital-0", **{**values, **changes})


def train_content(arrays: ArrayRecord | None = None, **metrics: Any) -> RecordDict:
    return RecordDict(
        {
            CLAIM: messages.claim_record(claim_of()),
            METRICS: MetricRecord({"num-examples": 100, **metrics}),
            ARRAYS: arrays or zeros(ENCODER),
        }
    )


def test_an_ordinary_update_passes() -> None:
    messages.check_outgoing(TRAIN, train_content(), allowed())
    messages.check_outgoing(TRAIN, train_content(loss=0.5), allowed(diagnostics=True))


@pytest.mark.parametrize(
    "shapes",
    [
        {**ENCODER, "decoder.0.weight": (784, 16)},
        {"0.weight": (784, 16), "0.bias": (784,)},
        {**ENCODER, "images": (100, 784)},
        {"1.weight": (100, 784), "1.bias": (16,)},
        {"1.weight": (16, 784)},
        {},
    ],
)
def test_arrays_that_are_not_the_encoders_are_stopped(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(Leak, match="encoder"):
        messages.check_outgoing(TRAIN, RecordDict({ARRAYS: zeros(shapes)}), allowed())


def test_a_loss_is_stopped_without_diagnostics_and_an_unknown_metric_always() -> None:
    with pytest.raises(Leak, match="loss"):
        messages.check_outgoing(TRAIN, train_content(loss=0.5), allowed())
    for diagnostics in (False, True):
        with pytest.raises(Leak, match="gradient-norm"):
            messages.check_outgoing(
                TRAIN, train_content(**{"gradient-norm": 0.5}), allowed(diagnostics=diagnostics)
            )


def test_per_record_losses_are_stopped_even_with_diagnostics() -> None:
    with pytest.raises(Leak):
        messages.check_outgoing(TRAIN, train_content(loss=[0.5, 0.1, 0.3]), allowed(diagnostics=True))


def test_a_list_in_place_of_the_number_of_records_is_stopped() -> None:
    content = RecordDict({METRICS: MetricRecord({"num-examples": [3, 1, 4, 1, 5]})})
    with pytest.raises(Leak):
        messages.check_outgoing(TRAIN, content, allowed())


def test_bytes_in_a_claim_are_stopped() -> None:
    record = messages.claim_record(claim_of())
    record["reason"] = bytes(784)
    with pytest.raises(Leak):
        messages.check_outgoing(TRAIN, RecordDict({CLAIM: record}), allowed())


def test_an_update_of_another_type_is_stopped() -> None:
    """float64 has room for a float32 weight and 29 more bits."""
    with pytest.raises(Leak):
        messages.check_outgoing(TRAIN, train_content(zeros(ENCODER, np.float64)), allowed())


def test_updates_are_stopped_where_only_encodings_are_shared_and_the_other_way_round() -> None:
    with pytest.raises(Leak, match="arrays"):
        messages.check_outgoing(TRAIN, train_content(), allowed(shares_updates=False))
    encodings = RecordDict({ARRAYS: zeros({"encodings": (5, 16)})})
    messages.check_outgoing(ENCODINGS, encodings, allowed())
    with pytest.raises(Leak, match="arrays"):
        messages.check_outgoing(ENCODINGS, encodings, allowed(shares_encodings=False))


@pytest.mark.parametrize(
    "shapes",
    [
        {"encodings": (5, 784)},
        {"encodings": (5, 1, 28, 28)},
        {"encodings": (5, 16), "labels": (5, 10)},
        {"encodings": (5, 16), "images": (5, 784)},
    ],
)
def test_pixels_are_stopped_among_encodings(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(Leak):
        messages.check_outgoing(ENCODINGS, RecordDict({ARRAYS: zeros(shapes)}), allowed())


def test_other_records_claim_keys_and_message_types_are_stopped() -> None:
    for kind in (HELLO, ENROL, TRAIN, ENCODINGS, EVALUATE):
        extra = RecordDict({"extra": ConfigRecord({})})
        with pytest.raises(Leak, match="extra"):
            messages.check_outgoing(kind, extra, allowed())
        with pytest.raises(Leak, match="patient"):
            messages.check_outgoing(kind, RecordDict({CLAIM: ConfigRecord({"patient": "A"})}), allowed())
    with pytest.raises(Leak, match=r"query\.other"):
        messages.check_outgoing("query.other", RecordDict(), allowed())


def test_arrays_are_stopped_in_every_message_that_should_have_none() -> None:
    for kind in (HELLO, ENROL, EVALUATE):
        with pytest.raises(Leak, match="arrays"):
            messages.check_outgoing(kind, RecordDict({ARRAYS: zeros(ENCODER)}), allowed())


@pytest.mark.parametrize("epsilon", [2.5, float("inf")])
def test_a_claim_is_read_as_it_was_written(epsilon: float) -> None:
    claim = claim_of(epsilon=epsilon)
    assert messages.read_claim(RecordDict({CLAIM: messages.claim_record(claim)})) == claim


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "excellent"},
        {"status": ["trained"]},
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
