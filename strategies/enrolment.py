"""Meets the hospitals: who is there, how many records each has, who stays away and why."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae import messages
from fl_ppae.errors import UserError
from fl_ppae.messages import CLAIM, CONFIG, DECLINED, ENROL, HELLO, LONGEST_TEXT, Malformed
from fl_ppae.privacy.events import Event
from fl_ppae.steps import step

WAIT_SECONDS = 120.0  # until the last hospital has connected
MOST_RECORDS = 10**9
_LONGEST_NAME = 200  # bytes: with an ending, what file systems take as the name of a file


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
        round: after which its own training stands in this run; 0 before the first.
        chain: of its ledger; empty if it declines without having opened it.
    """

    records: int
    test_records: int
    round: int
    history: tuple[Event, ...]
    chain: str
    declined: str = ""


def meet(grid: Grid, reply_timeout: float, wait_seconds: float = WAIT_SECONDS) -> tuple[Member, ...]:
    """Wait until the whole federation is connected; returns the hospitals in the order of their index.

    Raises:
        UserError: a hospital did not connect in time or answered wrongly, or two have the same index or name.
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
            expected = hello.count("hospitals", 1)
            members[node_id] = Member(hello.name(), hello.count("index"), node_id, hello.flag("deployed"))
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
    grid: Grid, members: Iterable[Member], where: Mapping[str, str], reply_timeout: float
) -> dict[str, Enrolment]:
    """Each hospital's enrolment by name, in the hospitals' order.

    `where`: the config of every message of the run.

    Raises:
        UserError: a hospital can't take part because of a mistake (too few records, a damaged ledger).
    """
    contents = {member.node_id: RecordDict({CONFIG: ConfigRecord({**where})}) for member in members}
    step("enrolling the hospitals")
    answers = ask(grid, contents, ENROL, reply_timeout)
    enrolments = {}
    for member in members:
        claim = answers[member.node_id]
        declined = claim.text("reason") if claim.text("status") == DECLINED else ""
        if declined:
            log(WARNING, "%s stays away: %s", member.name, declined)
        enrolments[member.name] = Enrolment(
            claim.count("records", 1),
            claim.count("test-records"),
            claim.count("round"),
            *claim.ledger(),
            declined,
        )
    return enrolments


@dataclass(frozen=True)
class Answered:
    """The claim in a node's answer to a message of this kind, read value by value.

    Raises:
        UserError: in each method, if the value is not of the kind it has to be.
    """

    node_id: int
    kind: str
    claim: ConfigRecord

    def count(self, key: str, least: int = 0) -> int:
        """A whole number from `least` to `MOST_RECORDS`."""
        value = self.claim.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_RECORDS:
            raise self._wrong(key, f"a whole number from {least} to {MOST_RECORDS}")
        return value

    def text(self, key: str) -> str:
        """A text that fits into a name or reason."""
        value = self.claim.get(key)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
            raise self._wrong(key, f"a text of at most {LONGEST_TEXT} letters")
        return value

    def name(self) -> str:
        """The hospital's name, which also names files of the run."""
        name = self.text("hospital")
        if not name or name[0] == "." or set(name) & {"/", "\\"} or len(name.encode()) > _LONGEST_NAME:
            raise self._wrong(
                "hospital", f"a name of 1 to {_LONGEST_NAME} bytes without slash or leading dot"
            )
        return name

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.claim.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def ledger(self) -> tuple[tuple[Event, ...], str]:
        """The events and the chain of its ledger."""
        try:
            return messages.read_events(self.claim), messages.read_chain(self.claim)
        except Malformed as problem:
            raise UserError(f"node {self.node_id} answered {self.kind} wrongly: {problem}") from None

    def _wrong(self, key: str, right: str) -> UserError:
        return UserError(f"node {self.node_id} answered {self.kind} wrongly: {key} is not {right}")


def ask(grid: Grid, contents: dict[int, RecordDict], kind: str, reply_timeout: float) -> dict[int, Answered]:
    """Send one message to each node and return the claim in each reply.

    Raises:
        UserError: a hospital answered with an error, or not in time.
    """
    questions = [
        Message(content, dst_node_id=node_id, message_type=kind) for node_id, content in contents.items()
    ]
    claims = {}
    for reply in grid.send_and_receive(questions, timeout=reply_timeout):
        if reply.has_error():
            reason = messages.reason_text(str(reply.error.reason))
            raise UserError(f"a hospital could not answer {kind}: {reason}")
        node_id = reply.metadata.src_node_id
        claims[node_id] = Answered(node_id, kind, reply.content.config_records.get(CLAIM, ConfigRecord()))
    if missing := sorted(contents.keys() - claims.keys()):
        raise UserError(
            f"no answer to {kind} from nodes {missing} within reply-timeout = {reply_timeout:g} s"
        )
    return claims
