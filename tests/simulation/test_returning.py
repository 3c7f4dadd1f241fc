"""A hospital that vanishes and comes back, under its old node id or a new one, goes on where it stood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from support import Run

from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.simulation.in_process import InProcessGrid
from strategies.enrolment import Member
from strategies.returning import find_returned

OLD, NEW = 3, 99  # node ids of hospital-1


class Restarted(InProcessGrid):
    """A grid on which hospital-1 is away in round 2, and in round 3 there again as node `back`."""

    back = NEW

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.round = 0
        self.lost = dict[int, Context]()

    def get_node_ids(self) -> Iterable[int]:
        self.round += bool(self.round) or self._enrolled  # asked once a round, after the first meeting
        if self.round == 2 and OLD in self._contexts:
            self.lost[OLD] = self._contexts.pop(OLD)
        if self.round == 3 and self.lost:
            config = self.lost.pop(OLD)
            self._contexts[self.back] = Context(
                config.run_id, self.back, config.node_config, RecordDict(), config.run_config
            )
        return super().get_node_ids()

    _enrolled = False

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        self._enrolled = self._enrolled or any(one.metadata.message_type == "query.enrol" for one in asked)
        return super().send_and_receive(
            [one for one in asked if one.metadata.dst_node_id in self._contexts], timeout=timeout
        )


class Reconnected(Restarted):
    back = OLD


MASKED = {"protection": "secagg", "min_hospitals": 2, "honest_hospitals": 2}


@pytest.mark.parametrize(
    ("grid", "keys"),
    [
        (Restarted, {}),
        pytest.param(Restarted, MASKED, marks=pytest.mark.slow),
        pytest.param(Reconnected, {}, marks=pytest.mark.slow),
        pytest.param(Reconnected, MASKED, marks=pytest.mark.slow),
    ],
)
def test_a_hospital_that_comes_back_goes_on_where_its_ledger_stands(
    grid: type[Restarted], keys: dict[str, Any], federate: Callable[..., Run]
) -> None:
    run = federate("run", grid=grid, num_server_rounds=4, target_epsilon=50.0, **keys)
    rows = [row for row in run.rows("hospitals.csv") if row["hospital"] == "hospital-1"]
    assert [row["status"] for row in rows] == ["trained", "failed", "trained", "trained"]
    assert rows[1]["reason"] == "no reply in time"
    own = read_ledger(run.path / "hospitals" / "hospital-1" / "ledger.jsonl").events
    assert [event.round for event in own] == [1, 3, 4]
    charged = run.ledger["hospitals"]["hospital-1"]
    assert [event["round"] for event in charged["events"]] == [1, 2, 3, 4], "silence is charged, too"


@pytest.mark.slow
def test_its_encodings_are_collected_from_its_new_node(federate: Callable[..., Run]) -> None:
    run = federate("run", grid=Restarted, num_server_rounds=3, share="updates+encodings", dp_scope="none")
    assert {upload["records"] for upload in run.summary["uploads"].values()} == {100}


HELLO = {"hospital": "hospital-1", "index": 1, "hospitals": 3, "deployed": True}


class Answering:
    """Nodes that are connected, with what they say of themselves."""

    def __init__(self, said: Mapping[int, Mapping[str, Any]]) -> None:
        self.said, self.asked = said, list[int]()

    def get_node_ids(self) -> Iterable[int]:
        return list(self.said)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        replies = []
        for question in messages:
            node = question.metadata.dst_node_id
            self.asked.append(node)
            content = RecordDict({"claim": ConfigRecord(dict(self.said[node]))})
            reply = Message(content, reply_to=question)
            reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
        return replies


@pytest.mark.parametrize(
    ("connected", "expected"),
    [
        ({10: {}, 12: {}, 99: HELLO}, 99),
        ({10: {}, 11: {}, 12: {}, 99: HELLO}, 11),  # it is still there
        ({10: {}, 12: {}, 98: HELLO, 99: HELLO}, 11),  # two say so
        ({10: {}, 12: {}, 99: {**HELLO, "index": 2}}, 11),
        ({10: {}, 12: {}, 99: {**HELLO, "deployed": False}}, 11),
        ({10: {}, 12: {}, 99: {**HELLO, "hospital": "hospital-0"}}, 11),
        ({10: {}, 12: {}, 99: {}}, 11),
        ({10: {}, 12: {}}, 11),
    ],
)
def test_only_one_new_node_of_a_hospital_that_is_gone_takes_its_place(
    connected: Mapping[int, Mapping[str, Any]], expected: int
) -> None:
    InProcessGrid(lambda *_: None, {}, [])  # type: ignore[arg-type]  # sets the task of Flower's messages
    members = [Member(f"hospital-{index}", index, 10 + index, True) for index in range(3)]
    nodes = {member.name: member.node_id for member in members}
    grid: Any = Answering(connected)
    find_returned(grid, members, nodes, 1.0)
    assert nodes == {"hospital-0": 10, "hospital-1": expected, "hospital-2": 12}
    assert set(grid.asked) <= {98, 99}, "those that are known are not asked again"
