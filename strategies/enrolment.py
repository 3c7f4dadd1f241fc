"""Meets the hospitals: who is there, how many records each has, who stays away and why."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae import messages
from fl_ppae.errors import UserError
from fl_ppae.messages import CLAIM, CONFIG, DECLINED, ENROL, HELLO
from fl_ppae.privacy.events import Event
from fl_ppae.steps import step

WAIT_SECONDS = 120.0  # until the last hospital has connected


@dataclass(frozen=True)
class Member:
    """One hospital of the federation; sums go in the order of `index`."""

    name: str
    index: int
    node_id: int
    deployed: bool


@dataclass(frozen=True)
class Enrolment:
    """A hospital's answer before round 1: its records, what they have paid so far, or why it declines.

    Attributes:
        chain: of its ledger; empty if it declines without having opened it.
    """

    records: int
    test_records: int
    history: tuple[Event, ...]
    declined: str = ""
    chain: str = ""


def meet(grid: Grid, reply_timeout: float, wait_seconds: float = WAIT_SECONDS) -> tuple[Member, ...]:
    """Wait until the whole federation is connected; returns the hospitals in the order of their index.

    Raises:
        UserError: a hospital did not connect in time, or two have the same index or name.
    """
    step("waiting for the hospitals")
    deadline = time.monotonic() + wait_seconds
    members: dict[int, Member] = {}
    expected = 1
    while len(members) < expected:
        new = sorted(set(grid.get_node_ids()) - members.keys())
        for node_id, hello in ask(
            grid, {node_id: RecordDict() for node_id in new}, HELLO, reply_timeout
        ).items():
            members[node_id] = Member(
                str(hello["hospital"]),
                int(hello["index"]),  # type: ignore[arg-type]
                node_id,
                bool(hello["deployed"]),
            )
            expected = int(hello["hospitals"])  # type: ignore[arg-type]
        if len(members) < expected:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{len(members)} of {expected} hospitals connected within {wait_seconds:.0f} s; "
                    "start the missing SuperNodes, or fewer with num-partitions to match"
                )
            time.sleep(0.1)
    ordered = tuple(sorted(members.values(), key=lambda member: member.index))
    if [member.index for member in ordered] != list(range(expected)):
        raise UserError(
            f"the nodes' partition-id are {[member.index for member in ordered]}, not 0 to {expected - 1}: "
            "give each SuperNode its own"
        )
    if len({member.name for member in ordered}) < expected:
        raise UserError(f"two hospitals have the same name: {[member.name for member in ordered]}")
    log(INFO, "%s hospitals: %s", expected, ", ".join(member.name for member in ordered))
    return ordered


def enrol(
    grid: Grid, members: Iterable[Member], run_directory: str, reply_timeout: float
) -> dict[str, Enrolment]:
    """Each hospital's enrolment by name, in the hospitals' order.

    Raises:
        UserError: a hospital can't take part because of a mistake (too few records, a damaged ledger).
    """
    contents = {
        member.node_id: RecordDict({CONFIG: ConfigRecord({"run-directory": run_directory})})
        for member in members
    }
    step("enrolling the hospitals")
    answers = ask(grid, contents, ENROL, reply_timeout)
    enrolments = {}
    for member in members:
        claim = answers[member.node_id]
        declined = str(claim["reason"]) if claim["status"] == DECLINED else ""
        if declined:
            log(WARNING, "%s stays away: %s", member.name, declined)
        enrolments[member.name] = Enrolment(
            int(claim["records"]),  # type: ignore[arg-type]
            int(claim["test-records"]),  # type: ignore[arg-type]
            messages.read_events(claim),
            declined,
            messages.read_chain(claim),
        )
    return enrolments


def ask(
    grid: Grid, contents: dict[int, RecordDict], kind: str, reply_timeout: float
) -> dict[int, ConfigRecord]:
    """Send one message to each node and return the claim in each reply.

    Raises:
        UserError: a hospital answered with an error, or without a claim.
    """
    questions = [
        Message(content, dst_node_id=node_id, message_type=kind) for node_id, content in contents.items()
    ]
    claims = {}
    for reply in grid.send_and_receive(questions, timeout=reply_timeout):
        if reply.has_error():
            raise UserError(f"a hospital could not answer {kind}: {reply.error.reason}")
        claims[reply.metadata.src_node_id] = reply.content.config_records[CLAIM]
    if missing := sorted(contents.keys() - claims.keys()):
        raise UserError(
            f"no answer to {kind} from nodes {missing} within reply-timeout = {reply_timeout:g} s"
        )
    return claims
