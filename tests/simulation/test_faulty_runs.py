"""A run with a faulty hospital ends with the tables and weights of the run of the honest ones alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_replies import OF_UPDATES, Fault, changed
from flwr.app import Message
from support import Run

from fl_ppae.messages import CLAIM, ENCODINGS, TRAIN
from fl_ppae.simulation.in_process import InProcessGrid

FAULTY_NODE, FROM = 3, 2  # hospital-1's, and the round of its first fault
OUTCOMES = ("hospitals_excluded", "epsilon_max", "epsilon_basis")  # what may tell excluded from silent
ENCODINGS_TOO = {"share": "updates+encodings", "dp_scope": "none"}
ALONE = {"share": "encodings", "dp_scope": "none"}


class Silent(InProcessGrid):
    """A grid on which every reply of hospital-1 is lost from round 2 on."""

    from_now_on = False

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        if message.metadata.dst_node_id != FAULTY_NODE:
            return reply
        config = message.content.config_records.get("config", {})
        self.from_now_on = self.from_now_on or config.get("server-round") == FROM
        return self.spoilt(message, reply) if self.from_now_on else reply

    def spoilt(self, message: Message, reply: Message) -> Message:
        return None  # type: ignore[return-value]

    def pull_messages(self, message_ids: Any) -> list[Message]:
        return [reply for reply in super().pull_messages(message_ids) if reply is not None]


def faulty(fault: Fault) -> type[Silent]:
    class Faulty(Silent):
        def spoilt(self, message: Message, reply: Message) -> Message:
            if message.metadata.message_type not in (TRAIN, ENCODINGS) or CLAIM not in reply.content:
                return reply
            forged = Message(changed(reply.content, fault), reply_to=message)
            forged.metadata.__dict__["_src_node_id"] = FAULTY_NODE
            return forged

    return Faulty


def rows_of(run: Run) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key not in OUTCOMES} for row in run.rows("rounds.csv")
    ]


def weights_of(run: Run) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in run.path.glob("*.safetensors")}
    assert found
    return found


KINDS_ALONE = ("another hospital's name", "a record that nobody asked for")
KINDS = (*KINDS_ALONE, "NaN", "huge", "a pickle", "no events")
"""Hospitals that train alone send no arrays in a round and pay nothing for it."""


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, ENCODINGS_TOO, ALONE], ids=["updates", "both", "encodings"])
def test_a_run_with_a_faulty_hospital_is_that_of_the_honest_ones(
    keys: dict[str, Any],
    federate: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"num_server_rounds": 3, "target_epsilon": 50.0, "evaluate_every": 1, **keys}
    honest = federate("honest", grid=Silent, **settings)
    whole = federate("whole", **settings)
    assert rows_of(whole) != rows_of(honest), "the control"
    for kind in KINDS_ALONE if keys == ALONE else KINDS:
        run = federate(kind.replace(" ", "-").replace("'", ""), grid=faulty(OF_UPDATES[kind]), **settings)
        assert rows_of(run) == rows_of(honest), kind
        assert weights_of(run) == weights_of(honest), kind
        assert run.summary["accuracy"] == honest.summary["accuracy"], kind
        rows = [row for row in run.rows("hospitals.csv") if row["hospital"] == "hospital-1"]
        assert [row["status"] for row in rows] == ["trained", "excluded", "excluded"], kind
        assert rows[-1]["reason"], kind
        assert not Path("left_by_pickle").exists()
