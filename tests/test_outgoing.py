"""What is stopped before it leaves a hospital: other records, keys, values, arrays and bytes."""

import json
import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_ppae import messages
from fl_ppae.data.spec import LabelFormat
from fl_ppae.messages import (
    ARRAYS,
    CLAIM,
    CONSISTENT,
    ENCODINGS,
    ENROL,
    EVALUATE,
    HELLO,
    KEYS,
    MASKED,
    METRICS,
    SECAGG,
    SHARES,
    TRAIN,
    UNMASK,
)
from fl_ppae.models.codes import EncodingFormat
from fl_ppae.outgoing import Leak, Outgoing, check_outgoing
from fl_ppae.privacy.events import PoissonGaussian

ENCODER = {"1.weight": (16, 784), "1.bias": (16,)}
CHAIN = "0123456789abcdef" * 2
EVENTS = messages.events_text([PoissonGaussian(1.5, 0.25, 4, 1)])
CLAIMS: dict[str, dict[str, Any]] = {
    HELLO: {"hospital": "hospital-0", "index": 0, "hospitals": 3, "deployed": False},
    ENROL: {
        "hospital": "hospital-0",
        "status": "ready",
        "reason": "",
        "records": 100,
        "test-records": 20,
        "round": 0,
        "events": EVENTS,
        "chain": CHAIN,
    },
    TRAIN: {
        "hospital": "hospital-0",
        "status": "trained",
        "reason": "",
        "events": EVENTS,
        "epsilon": 2.0,
        "chain": CHAIN,
    },
    ENCODINGS: {
        "hospital": "hospital-0",
        "status": "ready",
        "reason": "",
        "chunks": 1,
        "events": EVENTS,
        "chain": CHAIN,
    },
    EVALUATE: {"hospital": "hospital-0"},
    **{
        kind: {"hospital": "hospital-0", "status": "ready", "reason": ""}
        for kind in (KEYS, SHARES, CONSISTENT, UNMASK)
    },
}
NUMBERS = 16 * 784 + 16
ANSWERS = {
    KEYS: (2 + 10) * 32 + 64,
    SHARES: 2 * (10 * 64 + 16) + 10 * 32 + 3 * 10 * 32,
    CONSISTENT: 64,
    UNMASK: 99,
}
"""Bytes of each answer for 3 hospitals and a block of 10 rounds, computed from what it holds."""
REFUSED = {"status": "declined", "reason": "the budget is spent"}


def allowed(**changes: Any) -> Outgoing:
    values = {"shares_updates": True, "shares_encodings": True, "diagnostics": False}
    formats = {"update": ENCODER, "encoding": EncodingFormat((16,)), "label": LabelFormat((), 9)}
    return Outgoing(**{**formats, **values, **changes})


def zeros(shapes: dict[str, tuple[int, ...]], dtype: Any = np.float32) -> ArrayRecord:
    return ArrayRecord({name: Array(np.zeros(shape, dtype)) for name, shape in shapes.items()})


def claim(kind: str, **changes: Any) -> ConfigRecord:
    return ConfigRecord({**CLAIMS[kind], **changes})


def update(arrays: ArrayRecord | None = None, *, claimed: Any = None, **metrics: Any) -> RecordDict:
    return RecordDict(
        {
            CLAIM: claim(TRAIN, **(claimed or {})),
            METRICS: MetricRecord({"num-examples": 100, **metrics}),
            ARRAYS: arrays or zeros(ENCODER),
        }
    )


def chunk(arrays: ArrayRecord, **claimed: Any) -> RecordDict:
    return RecordDict({CLAIM: claim(ENCODINGS, **claimed), ARRAYS: arrays})


def labelled(count: int = 5) -> ArrayRecord:
    return ArrayRecord(
        {"encodings": Array(np.zeros((count, 16), np.float32)), "labels": Array(np.zeros(count, np.int64))}
    )


@pytest.mark.parametrize("kind", CLAIMS)
def test_an_ordinary_claim_passes_and_a_refusal_too(kind: str) -> None:
    check_outgoing(kind, RecordDict({CLAIM: claim(kind)}), allowed())
    if "status" in CLAIMS[kind]:
        check_outgoing(kind, RecordDict({CLAIM: claim(kind, **REFUSED)}), allowed())


def test_an_ordinary_update_passes_and_an_ordinary_chunk() -> None:
    check_outgoing(TRAIN, update(), allowed())
    check_outgoing(TRAIN, update(loss=0.5), allowed(diagnostics=True))
    check_outgoing(TRAIN, update(claimed={"epsilon": -1.0}), allowed())
    check_outgoing(ENCODINGS, chunk(labelled()), allowed())


def test_labels_leave_only_in_the_shape_of_the_data_set() -> None:
    sets = ArrayRecord(
        {"encodings": Array(np.zeros((5, 16), np.float32)), "labels": Array(np.zeros((5, 3), np.int64))}
    )
    check_outgoing(ENCODINGS, chunk(sets), allowed(label=LabelFormat((3,), 1)))
    for wrong in (LabelFormat((), 9), LabelFormat((4,), 1)):
        with pytest.raises(Leak):
            check_outgoing(ENCODINGS, chunk(sets), allowed(label=wrong))


def test_packed_encodings_leave_only_as_so_many_bytes_with_no_bit_beside_them() -> None:
    packed = allowed(encoding=EncodingFormat((3,), 2))
    check_outgoing(
        ENCODINGS, chunk(ArrayRecord({"encodings": Array(np.full((5, 1), 252, np.uint8))})), packed
    )
    for wrong in (np.full((5, 1), 253, np.uint8), np.zeros((5, 2), np.uint8), np.zeros((5, 3), np.float32)):
        with pytest.raises(Leak, match="may not leave"):
            check_outgoing(ENCODINGS, chunk(ArrayRecord({"encodings": Array(wrong)})), packed)


@pytest.mark.parametrize(
    "extra",
    [
        {ARRAYS: zeros(ENCODER)},
        {METRICS: MetricRecord({"num-examples": 100})},
        {ARRAYS: zeros({"encodings": (5, 16)})},
    ],
    ids=["update", "metrics", "encodings"],
)
@pytest.mark.parametrize("kind", [ENROL, TRAIN, ENCODINGS])
def test_a_reply_that_declines_holds_nothing_but_its_claim(kind: str, extra: dict[str, Any]) -> None:
    refusal = RecordDict({CLAIM: claim(kind, **REFUSED), **extra})
    with pytest.raises(Leak, match="only claim"):
        check_outgoing(kind, refusal, allowed())


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_reply_has_a_claim_with_all_its_keys(kind: str) -> None:
    with pytest.raises(Leak, match="one claim"):
        check_outgoing(kind, RecordDict(), allowed())
    for key in CLAIMS[kind]:
        short = claim(kind)
        del short[key]
        with pytest.raises(Leak, match=key):
            check_outgoing(kind, RecordDict({CLAIM: short}), allowed())


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "excellent"},
        {"status": "trained"},
        {"reason": "/srv/hospital/patients.npz"},  # it does not decline
        {**REFUSED, "reason": ""},
        {**REFUSED, "reason": "x" * 301},
        {**REFUSED, "reason": "two\nlines"},
        {"hospital": "x" * 301},
        {"hospital": bytes(8)},
        {"records": -1},
        {"records": True},
        {"records": 1.5},
        {"records": [3, 1, 4]},
        {"test-records": "many"},
        {"round": -1},
        {"events": "[0.1, 0.7, 0.3]"},
        {"events": json.dumps(json.loads(EVENTS), indent=1)},  # the same events in another spelling
        {"events": EVENTS.replace("1.5", "-1.5")},
        {"events": 5},
        {"chain": CHAIN[:-1]},
        {"chain": CHAIN.upper()},
        {"chain": 5},
    ],
    ids=str,
)
def test_a_value_that_a_claim_cannot_have_is_stopped(changes: dict[str, Any]) -> None:
    with pytest.raises(Leak):
        check_outgoing(ENROL, RecordDict({CLAIM: claim(ENROL, **changes)}), allowed())


@pytest.mark.parametrize("epsilon", [math.nan, math.inf, -0.5, -2.0, 1, "2", [2.0]])
def test_an_epsilon_that_is_none_is_stopped(epsilon: Any) -> None:
    with pytest.raises(Leak, match="epsilon"):
        check_outgoing(TRAIN, update(claimed={"epsilon": epsilon}), allowed())


@pytest.mark.parametrize("key", ["index", "hospitals"])
@pytest.mark.parametrize("value", [-1, 0.5, "0", True])
def test_an_index_or_a_size_that_is_no_count_is_stopped(key: str, value: Any) -> None:
    with pytest.raises(Leak, match=key):
        check_outgoing(HELLO, RecordDict({CLAIM: claim(HELLO, **{key: value})}), allowed())


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
    content = update()
    content[ARRAYS] = zeros(shapes)
    with pytest.raises(Leak, match=r"may not leave|an update holds"):
        check_outgoing(TRAIN, content, allowed())


def test_a_loss_is_stopped_without_diagnostics_and_an_unknown_metric_always() -> None:
    with pytest.raises(Leak, match="loss"):
        check_outgoing(TRAIN, update(loss=0.5), allowed())
    for diagnostics in (False, True):
        with pytest.raises(Leak, match="gradient-norm"):
            check_outgoing(TRAIN, update(**{"gradient-norm": 0.5}), allowed(diagnostics=diagnostics))


@pytest.mark.parametrize("loss", [[0.5, 0.1, 0.3], math.nan, math.inf, 3])
def test_per_record_losses_and_no_numbers_are_stopped_even_with_diagnostics(loss: Any) -> None:
    with pytest.raises(Leak, match="loss"):
        check_outgoing(TRAIN, update(loss=loss), allowed(diagnostics=True))


@pytest.mark.parametrize("records", [[3, 1, 4, 1, 5], 0.5, -3])
def test_a_number_of_records_that_is_none_is_stopped(records: Any) -> None:
    content = update()
    content[METRICS] = MetricRecord({"num-examples": records})
    with pytest.raises(Leak, match="num-examples"):
        check_outgoing(TRAIN, content, allowed())


def test_an_update_of_another_type_is_stopped() -> None:
    """float64 has room for a float32 weight and 29 more bits."""
    with pytest.raises(Leak):
        check_outgoing(TRAIN, update(zeros(ENCODER, np.float64)), allowed())


def test_bytes_that_are_not_the_array_which_they_declare_are_stopped() -> None:
    honest = Array(np.zeros((16,), np.float32))
    pixels = Array(np.zeros((784,), np.float32)).data
    for data in (pixels, honest.data + bytes(784), honest.data[:-4], b""):
        content = update()
        content[ARRAYS]["1.bias"] = Array("float32", (16,), "numpy.ndarray", data)
        with pytest.raises(Leak, match=r"1\.bias"):
            check_outgoing(TRAIN, content, allowed())


def test_updates_are_stopped_where_only_encodings_are_shared_and_the_other_way_round() -> None:
    with pytest.raises(Leak, match="arrays"):
        check_outgoing(TRAIN, update(), allowed(shares_updates=False))
    with pytest.raises(Leak, match="arrays"):
        check_outgoing(ENCODINGS, chunk(labelled()), allowed(shares_encodings=False))


@pytest.mark.parametrize(
    "arrays",
    [
        zeros({"encodings": (5, 784)}),
        zeros({"encodings": (5, 1, 28, 28)}),
        zeros({"encodings": (5, 16), "labels": (5, 10)}),
        zeros({"encodings": (5, 16), "images": (5, 784)}),
        zeros({"encodings": (5, 16)}, np.float64),
        ArrayRecord({"labels": Array(np.zeros(5, np.int64))}),
        ArrayRecord({"encodings": Array(np.zeros((5, 16), np.float32)), "labels": Array(np.arange(6))}),
        ArrayRecord({"encodings": Array(np.full((5, 16), np.nan, np.float32))}),
        ArrayRecord({"encodings": Array(np.full((5, 16), -np.inf, np.float32))}),
    ],
    ids=[
        "pixels",
        "images",
        "one-hot",
        "more",
        "float64",
        "labels alone",
        "too many labels",
        "NaN",
        "infinite",
    ],
)
def test_what_is_no_chunk_of_encodings_is_stopped(arrays: ArrayRecord) -> None:
    with pytest.raises(Leak):
        check_outgoing(ENCODINGS, chunk(arrays), allowed())


def test_other_records_claim_keys_and_message_types_are_stopped() -> None:
    for kind, values in CLAIMS.items():
        extra = RecordDict({CLAIM: claim(kind), "extra": ConfigRecord({})})
        with pytest.raises(Leak, match="extra"):
            check_outgoing(kind, extra, allowed())
        with pytest.raises(Leak, match="patient"):
            named = ConfigRecord({**values, "patient": "A"})
            check_outgoing(kind, RecordDict({CLAIM: named}), allowed())
    with pytest.raises(Leak, match=r"query\.other"):
        check_outgoing("query.other", RecordDict(), allowed())


@pytest.mark.parametrize("name", [METRICS, ARRAYS])
def test_a_record_of_another_kind_under_an_allowed_name_is_stopped(name: str) -> None:
    content = update()
    content[name] = ConfigRecord({"hospital": "hospital-0"})
    with pytest.raises(Leak, match="one claim"):
        check_outgoing(TRAIN, content, allowed())
    content = update()
    content[CLAIM] = MetricRecord({"num-examples": 1})
    with pytest.raises(Leak, match="one claim"):
        check_outgoing(TRAIN, content, allowed())


def test_arrays_are_stopped_in_every_message_that_should_have_none() -> None:
    for kind in (HELLO, ENROL, EVALUATE):
        content = RecordDict({CLAIM: claim(kind), ARRAYS: zeros(ENCODER)})
        with pytest.raises(Leak, match="arrays"):
            check_outgoing(kind, content, allowed())


def masked(array: np.ndarray | None = None) -> RecordDict:
    return update(ArrayRecord({MASKED: Array(np.zeros(NUMBERS, np.uint32) if array is None else array)}))


def answer(kind: str, data: Any) -> RecordDict:
    return RecordDict({CLAIM: claim(kind), SECAGG: ConfigRecord({"data": data})})


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_masked_update_passes_and_what_unmasks_the_sum(kind: str) -> None:
    check_outgoing(TRAIN, masked(), allowed(masked=True))
    check_outgoing(kind, answer(kind, bytes(ANSWERS[kind])), allowed(masked=True))


def test_an_update_in_the_clear_is_stopped_where_updates_are_masked_and_the_other_way_round() -> None:
    both = ArrayRecord({**zeros(ENCODER), MASKED: Array(np.zeros(NUMBERS, np.uint32))})
    for content in (update(), update(both)):
        with pytest.raises(Leak):
            check_outgoing(TRAIN, content, allowed(masked=True))
    with pytest.raises(Leak):
        check_outgoing(TRAIN, masked(), allowed())


@pytest.mark.parametrize(
    "array",
    [np.zeros(NUMBERS + 1, np.uint32), np.zeros((1, NUMBERS), np.uint32), np.zeros(NUMBERS, np.float32)],
)
def test_a_masked_update_of_another_shape_or_type_is_stopped(array: np.ndarray) -> None:
    with pytest.raises(Leak, match=MASKED):
        check_outgoing(TRAIN, masked(array), allowed(masked=True))


@pytest.mark.parametrize("kind", ANSWERS)
def test_bytes_of_another_length_or_kind_are_stopped(kind: str) -> None:
    right = bytes(ANSWERS[kind])
    for data in (right + b"1", right[:-1], b"", right.decode(), [right], 5):
        with pytest.raises(Leak, match=SECAGG):
            check_outgoing(kind, answer(kind, data), allowed(masked=True))
    content = answer(kind, right)
    content[SECAGG]["more"] = b"1"
    with pytest.raises(Leak, match=SECAGG):
        check_outgoing(kind, content, allowed(masked=True))


@pytest.mark.parametrize("kind", [*CLAIMS])
def test_bytes_for_secure_aggregation_leave_only_in_its_own_messages(kind: str) -> None:
    right = bytes(ANSWERS.get(kind, 64))
    with pytest.raises(Leak, match=SECAGG):
        check_outgoing(kind, answer(kind, right), allowed())
    if kind not in ANSWERS:
        with pytest.raises(Leak, match=SECAGG):
            check_outgoing(kind, answer(kind, right), allowed(masked=True))


def test_a_hospital_that_is_absent_from_a_round_sends_its_claim_alone() -> None:
    absent = claim(TRAIN, status="absent", reason="it has no keys")
    check_outgoing(TRAIN, RecordDict({CLAIM: absent}), allowed(masked=True))
    with pytest.raises(Leak, match="only claim"):
        check_outgoing(TRAIN, RecordDict({**masked(), CLAIM: absent}), allowed(masked=True))
    for kind in (ENROL, ENCODINGS, KEYS):
        content = RecordDict({CLAIM: claim(kind, status="absent", reason="it has no keys")})
        with pytest.raises(Leak, match="status"):
            check_outgoing(kind, content, allowed(masked=True))
