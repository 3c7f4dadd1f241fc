"""An upload is what its hospital enrolled with, or it is refused at its first wrong chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_replies import IN_ARRAYS, IN_CLAIM, IN_FLOATS, changed, claiming, of_arrays, replaced_by
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fl_ppae import client_app, message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.data.spec import LabelFormat
from fl_ppae.messages import ARRAYS, CLAIM, LONGEST_TEXT, Malformed
from fl_ppae.models.codes import EncodingFormat
from fl_ppae.privacy.plan import plan_hospital, planned_terms
from fl_ppae.privacy.terms import Terms
from fl_ppae.simulation.in_process import InProcessGrid
from strategies.encoding_upload import Refused, Request, Upload, collect
from strategies.server_ledger import EXCLUDED, Account, ServerLedger

ENCODING, LABEL = EncodingFormat((4,)), LabelFormat((), 9)
ROWS, RECORDS, CHUNKS = 3, 8, 3
FAULTY = "hospital-1"
Forge = Callable[[Message, RecordDict, int], list[RecordDict | Error]]
"""What a hospital answers instead of honest content to a question for a chunk."""


def account() -> Account:
    keys = {"dataset": "mnist", "batch-size": 5, "target-delta": 1e-3, "share": "updates+encodings"}
    config = RunConfig.from_flat({**keys, "dp-scope": "none", "min-records": 1})
    return Account(planned_terms(plan_hospital("any", RECORDS, config), config, "run-a"))


class Hospitals:
    """Three hospitals on a grid; `FAULTY` answers as `forge` says."""

    def __init__(self, forge: Forge | None) -> None:
        InProcessGrid(client_app.app, {}, [{}] * 3)  # sets the task that Flower stamps messages with
        self.nodes = {f"hospital-{index}": 10 + index for index in range(3)}
        self.ledger = ServerLedger({name: account() for name in self.nodes})
        self.forge, self.asked = forge, dict.fromkeys(self.nodes, 0)

    def send_and_receive(self, questions: Iterable[Message], *, timeout: float) -> list[Message]:
        replies = []
        for question in questions:
            name = {node: name for name, node in self.nodes.items()}[question.metadata.dst_node_id]
            chunk = int(question.content["config"]["chunk"])
            self.asked[name] += 1
            honest = self.content(name, chunk)
            forged = self.forge is not None and name == FAULTY
            for answer in self.forge(question, honest, chunk) if forged and self.forge else [honest]:
                reply = Message(answer, reply_to=question)
                reply.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
                replies.append(reply)
        return replies

    def content(self, name: str, chunk: int) -> RecordDict:
        rng = np.random.default_rng([self.nodes[name], chunk])
        rows = min(ROWS, RECORDS - chunk * ROWS)
        terms: Terms = self.ledger.accounts[name].terms
        claim: dict[str, Any] = {"hospital": name, "status": "ready", "reason": "", "chunks": CHUNKS}
        claim |= {"events": messages.events_text(terms.upload_events("train", 10)), "chain": ""}
        arrays = {
            "encodings": Array(rng.normal(size=(rows, 4)).astype(np.float32)),
            "labels": Array(rng.integers(0, 10, rows)),
        }
        return RecordDict({CLAIM: ConfigRecord(claim), ARRAYS: ArrayRecord(arrays)})

    def upload(self) -> dict[str, Upload | Refused]:
        request = Request("train", 10, ENCODING, LABEL, {}, None, None, 1.0)
        return collect(self, self.ledger, self.nodes, dict.fromkeys(self.nodes, RECORDS), request)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(message_arrays, "CHUNK_BYTES", ROWS * 4 * 4)
    monkeypatch.chdir(tmp_path)


def check_the_others(found: dict[str, Upload | Refused]) -> None:
    """Check that the other hospitals' uploads are the bits that they are without any fault."""
    honest = Hospitals(None).upload()
    for name in ("hospital-0", "hospital-2"):
        one, other = found[name], honest[name]
        assert isinstance(one, Upload) and isinstance(other, Upload)
        assert one.labels is not None and other.labels is not None
        assert one.encodings.tobytes() == other.encodings.tobytes()
        assert one.labels.tobytes() == other.labels.tobytes()


def test_honest_uploads_are_collected_chunk_by_chunk() -> None:
    hospitals = Hospitals(None)
    found = hospitals.upload()
    for upload in found.values():
        assert isinstance(upload, Upload)
        assert upload.encodings.shape == (RECORDS, 4)
    assert set(hospitals.asked.values()) == {CHUNKS}


ONCE: dict[str, Forge] = {
    **{
        kind: lambda question, honest, chunk, fault=fault: [changed(honest, fault)]  # type: ignore[misc]
        for kind, fault in (IN_ARRAYS | IN_FLOATS | IN_CLAIM).items()
    },
    "it raises": lambda question, honest, chunk: [Error(0, "it crashed")],
    "silence": lambda question, honest, chunk: [],
    "endless chunks": lambda question, honest, chunk: [changed(honest, claiming(chunks=10**9))],
    "a chunk less": lambda question, honest, chunk: [changed(honest, claiming(chunks=CHUNKS - 1))],
    "a negative number of chunks": lambda question, honest, chunk: [changed(honest, claiming(chunks=-1))],
    "rows beyond those enrolled": lambda question, honest, chunk: [
        changed(honest, replaced_by(lambda array: Array(np.zeros((10**6, 4), np.float32))))
    ],
    "labels outside the range": lambda question, honest, chunk: [
        changed(honest, of_arrays(lambda arrays, _: arrays.update({"labels": Array(np.full(ROWS, -1))})))
    ],
}


@pytest.mark.parametrize("kind", ONCE)
def test_a_wrong_upload_is_refused_at_its_first_chunk_and_the_others_are_the_same_bits(kind: str) -> None:
    hospitals = Hospitals(ONCE[kind])
    found = hospitals.upload()
    assert isinstance(found[FAULTY], Refused)
    assert 0 < len(found[FAULTY].reason) <= LONGEST_TEXT
    assert hospitals.asked == {"hospital-0": CHUNKS, FAULTY: 1, "hospital-2": CHUNKS}
    assert not Path("left_by_pickle").exists()
    check_the_others(found)


def test_an_upload_that_grows_later_is_refused_there() -> None:
    def growing(_question: Message, honest: RecordDict, chunk: int) -> list[RecordDict | Error]:
        return [changed(honest, claiming(chunks=CHUNKS + chunk))]

    hospitals = Hospitals(growing)
    refused = hospitals.upload()[FAULTY]
    assert refused == Refused("it announces 4 chunks; 8 encodings make 3")
    assert hospitals.asked[FAULTY] == 2


def test_of_two_answers_to_one_question_the_first_counts() -> None:
    def twice(_question: Message, honest: RecordDict, chunk: int) -> list[RecordDict | Error]:
        other = replaced_by(lambda array: Array(np.zeros(array.shape, np.float32)))
        return [honest, changed(honest, other)]

    found, honest = Hospitals(twice).upload()[FAULTY], Hospitals(None).upload()[FAULTY]
    assert isinstance(found, Upload) and isinstance(honest, Upload)
    assert found.encodings.tobytes() == honest.encodings.tobytes()


def test_an_error_of_any_length_is_kept_as_one_short_line_that_no_terminal_obeys() -> None:
    found = Hospitals(lambda *_: [Error(0, "\x1b[2J" + 10**6 * "a\n")]).upload()[FAULTY]
    assert isinstance(found, Refused)
    assert len(found.reason) <= LONGEST_TEXT
    assert found.reason.startswith("\\x1b[2Ja a a")


def test_a_hospital_that_answers_under_another_name_is_not_asked_for_its_test_part() -> None:
    hospitals = Hospitals(lambda _q, honest, _c: [changed(honest, IN_CLAIM["another hospital's name"])])
    hospitals.upload()
    assert hospitals.ledger.accounts[FAULTY].status == EXCLUDED


def test_codes_of_another_number_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked, one bit becomes a number of eight bytes."""

    def unpacked(*_: Any) -> np.ndarray:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr(EncodingFormat, "unpacked", unpacked)
    code = EncodingFormat((16,), 1)
    arrays = ArrayRecord({"encodings": Array(np.zeros((5, 2), np.uint8))})
    content = RecordDict({CLAIM: ConfigRecord({"chunks": 1}), ARRAYS: arrays})
    with pytest.raises(Malformed, match=r"encodings is not uint8 \(4, 2\)"):
        message_arrays.read_chunk(content, code, None, rows=4)
    with pytest.raises(AssertionError, match="unpacked"):
        message_arrays.read_chunk(content, code, None, rows=5)
