"""The server waits for every reply as long as `reply-timeout` says, and goes on without late hospitals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import Message
from support import Run

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.messages import CONSISTENT, ENCODINGS, ENROL, HELLO, KEYS, SHARES, TRAIN, UNMASK
from fl_ppae.simulation.in_process import InProcessGrid

PLAIN = {"share": "updates+encodings", "dp_scope": "none"}
MASKED = {"protection": "secagg", "min_hospitals": 2, "honest_hospitals": 2, "num_server_rounds": 1}


class Punctual(InProcessGrid):
    """A grid that notes how long it was to wait for which messages."""

    waited: dict[str, set[float | None]]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        type(self).waited = {}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        for message in asked:
            self.waited.setdefault(message.metadata.message_type, set()).add(timeout)
        return super().send_and_receive(asked, timeout=timeout)


@pytest.mark.parametrize(
    ("keys", "kinds"),
    [
        (PLAIN, {HELLO, ENROL, TRAIN, ENCODINGS}),
        (MASKED, {HELLO, ENROL, KEYS, SHARES, TRAIN, CONSISTENT, UNMASK}),
    ],
)
def test_every_exchange_waits_as_long_as_the_key_says(
    keys: dict[str, Any], kinds: set[str], federate: Callable[..., Run]
) -> None:
    federate("run", **keys, reply_timeout=7.5, grid=Punctual)
    assert Punctual.waited == {kind: {7.5} for kind in kinds}


class Late(InProcessGrid):
    """A grid on which hospital-1 trains, but its reply comes too late."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = list(super().send_and_receive(messages, timeout=timeout))
        last = list(self.get_node_ids())[1]
        return [
            reply
            for reply in replies
            if reply.metadata.message_type != TRAIN or reply.metadata.src_node_id != last
        ]


@pytest.mark.parametrize("keys", [{}, MASKED])
def test_a_late_hospital_counts_as_dropped_out_and_is_named(
    keys: dict[str, Any], federate: Callable[..., Run]
) -> None:
    run = federate("run", **{"num_server_rounds": 1, **keys}, grid=Late)
    assert run.summary["status"] == "completed"
    outcome = {row["hospital"]: (row["status"], row["reason"]) for row in run.rows("hospitals.csv")}
    assert outcome["hospital-1"] == ("failed", "no reply in time")
    assert outcome["hospital-0"] == outcome["hospital-2"] == ("trained", "")
    assert len(run.ledger["hospitals"]["hospital-1"]["events"]) == 1, "it is charged all the same"


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "greater than 0"), (50_000.0, "less than or equal")])
def test_a_time_that_flower_cannot_keep_is_refused(
    seconds: float, words: str, small: Callable[..., RunConfig]
) -> None:
    with pytest.raises(UserError, match=f"reply-timeout = {seconds}: must be {words}"):
        small(reply_timeout=seconds)
