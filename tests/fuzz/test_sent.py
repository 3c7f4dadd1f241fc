"""Any content of a message: a hospital declines, a server reads it or calls it malformed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from fuzz.cases import damaged, refused_in_one_line, tiers, tried
from hospital.asked import AskedHospital
from hypothesis import strategies as st

from fl_ppae import message_arrays, messages, secure_messages
from fl_ppae.hospital import requests
from fl_ppae.hospital.failures import LOG
from fl_ppae.messages import (
    CLAIM,
    CONFIG,
    ENCODINGS,
    ENROL,
    EVALUATE,
    HELLO,
    METRICS,
    SECAGG,
    TRAIN,
    Malformed,
)
from fl_ppae.models.build import released_format_of, shared_shapes_of
from fl_ppae.privacy.events import PoissonGaussian

WORDS = st.text(max_size=12) | st.sampled_from(
    ["trained", "[]", "[{}]", "[[", "hospital-0", "a\nb", "-1", "nan"]
)
SCALARS = st.one_of(st.integers(-(2**40), 2**40), st.floats(), st.booleans(), WORDS, st.binary(max_size=9))
LISTS = (
    st.lists(st.integers(0, 9), max_size=3) | st.lists(WORDS, max_size=3) | st.lists(st.binary(max_size=3))
)
VALUES = SCALARS | LISTS
EVENT = messages.events_text([PoissonGaussian(1.5, 0.25, 4, 1)])
HONEST_CLAIM = {
    "hospital": "hospital-0",
    "status": "trained",
    "reason": "",
    "events": EVENT,
    "epsilon": 1.0,
    "chain": "",
    "chunks": 1,
}
SENT = ["server-round", "checkpointed", "resumed", "part", "chunk", "run-directory", *HONEST_CLAIM]


def changed(honest: dict[str, Any]) -> st.SearchStrategy[ConfigRecord]:
    """A record with some values changed, some lost and some that nobody asked for."""
    changes = st.dictionaries(st.sampled_from(SENT) | WORDS, VALUES | st.none(), max_size=4)
    return changes.map(
        lambda some: ConfigRecord({key: one for key, one in {**honest, **some}.items() if one is not None})
    )


@st.composite
def array(draw: st.DrawFn) -> Array:
    """An array that was altered on its way, or another one."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    kind = draw(st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.uint32, np.complex64, "S3"]))
    filled = draw(
        st.sampled_from([0, 1, 200])
        | st.sampled_from([np.nan, np.inf, 1e30]).filter(lambda _: kind in (np.float32, np.float64))
    )
    honest = Array(np.full(shape, filled).astype(kind))
    stype = draw(st.sampled_from([honest.stype, "torch.pickle", ""]))
    announced = draw(st.sampled_from([honest.shape, (10**12,), (-1,), ()]))
    return Array(
        draw(st.sampled_from([honest.dtype, "object", "x"])), announced, stype, draw(damaged(honest.data))
    )


ARRAYS = st.dictionaries(
    st.sampled_from(["encodings", "labels", "masked", "centre", "components", "clip-norm"]) | WORDS,
    array(),
    max_size=3,
).map(ArrayRecord)
METRIC = st.dictionaries(WORDS | st.just("num-examples"), st.floats() | st.integers(-9, 9), max_size=2).map(
    MetricRecord
)


@pytest.fixture
def hospital(tmp_path: Path) -> AskedHospital:
    return AskedHospital(tmp_path / "hospital")


@tiers(short=25, long=1200)
def test_a_hospital_answers_any_request_without_failing_or_paying(
    cases: int, hospital: AskedHospital
) -> None:
    """It declines, or answers what needs no payment; what a sound request gets is tested elsewhere."""
    asked = st.sampled_from([TRAIN, ENCODINGS, EVALUATE, HELLO, ENROL])
    configs = changed({"run-directory": ""}).filter(lambda config: config.get("server-round") not in (1, 2))
    records = st.dictionaries(st.sampled_from(["arrays", "projection"]) | WORDS, ARRAYS, max_size=2)
    log = hospital.state / LOG

    def check(given: tuple[str, ConfigRecord, dict[str, Any]]) -> None:
        kind, config, more = given
        log.unlink(missing_ok=True)
        reply = hospital.ask(kind, RecordDict({**more, CONFIG: config}))
        if reply.has_error():
            kind_of_error = log.read_text().rstrip().splitlines()[-1].split(":")[0].rpartition(".")[2]
            assert kind_of_error in ("UserError", "PublicMistake", "Malformed"), log.read_text()
        assert not hospital.events, "it paid for nothing that could be used"

    tried(cases, st.tuples(asked, configs, records), check)


@tiers(short=80, long=2500)
def test_a_server_reads_any_reply_or_calls_it_malformed(cases: int, hospital: AskedHospital) -> None:
    config = hospital.config
    shapes = shared_shapes_of(config)
    sent = released_format_of(config)
    readers = (
        messages.read_claim,
        lambda content: messages.read_events(content.config_records.get(CLAIM, ConfigRecord())),
        lambda content: messages.read_chain(content.config_records.get(CLAIM, ConfigRecord())),
        lambda content: messages.read_metrics(content, ()),
        lambda content: message_arrays.from_arrays(
            content.array_records.get("arrays", ArrayRecord()), shapes
        ),
        lambda content: message_arrays.masked_in(content.array_records.get("arrays", ArrayRecord()), 7),
        lambda content: message_arrays.read_projection(content, 5, (16,)),
        lambda content: message_arrays.read_chunk(content, sent, None),
        secure_messages.read_data,
        secure_messages.read_named,
        secure_messages.read_survivors,
        secure_messages.read_step,
        lambda content: requests.train_request(content, config),
        lambda content: requests.upload_request(content, config),
        lambda content: requests.run_in(content, "7"),
    )
    secret = st.dictionaries(st.sampled_from(["data", "named", "values", "survivors", "step"]), VALUES).map(
        ConfigRecord
    )
    contents = st.fixed_dictionaries(
        {CLAIM: changed(HONEST_CLAIM), CONFIG: changed({"server-round": 1, "part": "train", "chunk": 0})},
        optional={"arrays": ARRAYS, "projection": ARRAYS, METRICS: METRIC, SECAGG: secret},
    )

    def check(records: dict[str, Any]) -> None:
        for read in readers:
            refused_in_one_line(lambda read=read: read(RecordDict(records)), Malformed)

    tried(cases, contents, check)
