"""The hospitals' replies in the hospitals' order, whatever order they arrive in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flwr.app import Message, RecordDict


@dataclass(frozen=True)
class TrainReply:
    """One hospital's result of a round.

    Attributes:
        status: trained, stopped (declined), excluded or failed; `reason` if not trained, not combined, or
            lost after training.
        content: to be averaged; None if there is nothing to average.
    """

    status: str
    reason: str
    content: RecordDict | None = None


@dataclass(frozen=True)
class RoundReport:
    """The result of one round for each hospital that was asked, in the hospitals' order.

    `not_combined`: why the updates that came were not combined, and the encoder stayed as it was; else empty.
    """

    server_round: int
    replies: Mapping[str, TrainReply]
    not_combined: str = ""


def without_arrays(reply: TrainReply) -> TrainReply:
    """A reply that was combined, with its metrics alone."""
    if reply.content is None:
        return reply
    return replace(reply, content=RecordDict(dict(reply.content.metric_records)))


def by_hospital(replies: Iterable[Message], nodes: Mapping[str, int]) -> dict[str, Message]:
    """Replies by hospital name, in the order of `nodes`: of each node the first, of unknown nodes none.

    Flower's node ids are random in every run and replies arrive in any order, so a floating-point sum in
    either order would differ from run to run.
    """
    by_node: dict[int, Message] = {}
    for message in replies:
        by_node.setdefault(message.metadata.src_node_id, message)
    return {name: by_node[node] for name, node in nodes.items() if node in by_node}
