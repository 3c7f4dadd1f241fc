"""Replies in the hospitals' order, and what became of them: the same whatever order they came in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict


@dataclass(frozen=True)
class TrainReply:
    """One hospital's part in a round.

    Attributes:
        status: trained, stopped (declined), excluded or failed; `reason` if not trained.
        content: what is averaged; None if nothing is.
    """

    status: str
    reason: str
    content: RecordDict | None = None


@dataclass(frozen=True)
class RoundReport:
    """What happened in one round to each hospital that was asked, in their order."""

    server_round: int
    replies: Mapping[str, TrainReply]


def by_hospital(replies: Iterable[Message], nodes: Mapping[str, int]) -> dict[str, Message]:
    """Replies by hospital name, in the order of `nodes`. One from an unknown node is dropped.

    Flower's node ids are random in every run and replies come in any order: a floating-point sum over
    them would differ from run to run.
    """
    by_node = {message.metadata.src_node_id: message for message in replies}
    return {name: by_node[node] for name, node in nodes.items() if node in by_node}
