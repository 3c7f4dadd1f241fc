"""Finds hospitals again that come back under another node id, as a restarted SuperNode without a key does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae.messages import CLAIM, HELLO
from strategies.enrolment import Member


def find_returned(grid: Grid, members: Iterable[Member], nodes: dict[str, int], reply_timeout: float) -> None:
    """Note in `nodes` (ids by name) the new node of every hospital whose old one is no longer connected.

    As long as a hospital is connected, no other node takes its place; and if two say that they are the same
    hospital, neither does. Whether it is the one that enrolled is decided by its next claim, which has to go
    on where its ledger stood.
    """
    connected = set(grid.get_node_ids())
    gone = {member.name: member for member in members if nodes[member.name] not in connected}
    strangers = sorted(connected - set(nodes.values()))
    if not gone or not strangers:
        return
    questions = [Message(RecordDict(), dst_node_id=node, message_type=HELLO) for node in strangers]
    said: dict[int, str] = {}
    for reply in grid.send_and_receive(questions, timeout=reply_timeout):
        claim = (
            ConfigRecord() if reply.has_error() else reply.content.config_records.get(CLAIM, ConfigRecord())
        )
        name = claim.get("hospital")
        member = gone.get(name) if isinstance(name, str) else None
        if member and (claim.get("index"), claim.get("deployed")) == (member.index, member.deployed):
            said[reply.metadata.src_node_id] = member.name
    nodes_of = Counter(said.values())
    for node, name in said.items():
        if nodes_of[name] > 1:
            log(WARNING, "node %s and another one both say that they are %s: neither is asked", node, name)
            continue
        log(INFO, "%s is back, as node %s", name, node)
        nodes[name] = node
