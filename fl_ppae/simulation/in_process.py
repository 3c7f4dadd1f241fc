"""Runs the same Flower apps one after another in this process: no Ray, no SuperLink, the same numbers."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal

NodeConfigs = Sequence[Mapping[str, bool | int | float | str]]

_CLIENT_RAISED = 0  # Flower's ErrorCode.UNKNOWN: the hospital's handler raised


class InProcessGrid(Grid):
    """A Flower grid that hands each message to a ClientApp at once and keeps its reply.

    Args:
        client_app: the hospitals' app.
        run_config: flat configuration, as Flower passes it.
        nodes: one node configuration per hospital.
    """

    def __init__(
        self, client_app: ClientApp, run_config: dict[str, bool | int | float | str], nodes: NodeConfigs
    ) -> None:
        self._client_app = client_app
        self._run = Run.create_empty(run_id=secrets.randbits(63))
        self._contexts = {
            node_id: Context(self._run.run_id, node_id, dict(node), RecordDict(), dict(run_config))
            for node_id, node in enumerate(nodes, start=SUPERLINK_NODE_ID + 1)
        }
        # Flower stamps every message with the current task.
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Adopt the identity of `run`."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver `messages` one after another; returns their ids."""
        ids = []
        for message in messages:
            message_id = secrets.token_hex(16)
            message.metadata.__dict__["_message_id"] = message_id
            self._replies[message_id] = self._deliver(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to the messages with these ids; each reply is returned only once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver `messages` and return their replies in order. `timeout` has no effect."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        # A copy, so that a hospital can neither see nor change the server's own objects.
        received = copy.deepcopy(message)
        try:
            reply = self._client_app(received, self._contexts[node_id])
        except Exception as problem:  # as in Flower, a failing hospital is a reply, not a crash
            reason = f"{type(problem).__name__}: {problem}"
            reply = Message(Error(_CLIENT_RAISED, reason), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node_id
        return reply


def run_in_process(config: RunConfig, deal: Deal, simulation: str) -> Path:
    """Run a whole simulation of the hospitals in `deal` and return its run directory.

    Raises:
        UserError: a mistake in the input. Other exceptions of the server pass through.
    """
    from fl_ppae import server_app

    return server_app.serve(simulated_grid(config, len(deal.train)), config, simulation, deal)


def simulated_grid(config: RunConfig, num_hospitals: int) -> InProcessGrid:
    """A grid of `num_hospitals` simulated hospitals."""
    from fl_ppae import client_app

    nodes = [{"partition-id": index, "num-partitions": num_hospitals} for index in range(num_hospitals)]
    return InProcessGrid(client_app.app, config.to_flat(), nodes)
