"""Exchanges with several hospitals that go on without those that fail, and say why by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import TypeVar

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae import messages
from fl_ppae.messages import CLAIM, CONFIG, DECLINED, SECAGG, Malformed
from fl_ppae.secagg.server import Fault
from fl_ppae.secure_messages import read_data
from strategies.replies import by_hospital

_T = TypeVar("_T")


class Exchange:
    """Asks hospitals for bytes of secure aggregation, in one or more turns.

    Args:
        nodes: Flower node ids by hospital name.
        where: config of every message.
        reply_timeout: seconds; a later answer is none.

    Attributes:
        reasons: the first fault of each hospital that has one.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        where: ConfigRecord,
        reply_timeout: float,
        server_round: int = 0,
    ) -> None:
        self._grid, self._nodes, self._reply_timeout = grid, nodes, reply_timeout
        self._config = ConfigRecord({**where, "server-round": server_round})
        self.reasons: dict[str, str] = {}

    def ask(self, kind: str, contents: Mapping[str, ConfigRecord]) -> dict[str, bytes]:
        """The answers of the hospitals in `contents`, in their order; what else they send is a fault."""
        questions = [
            Message(RecordDict({CONFIG: self._config, SECAGG: record}), self._nodes[name], kind)
            for name, record in contents.items()
        ]
        replies = by_hospital(
            self._grid.send_and_receive(questions, timeout=self._reply_timeout), self._nodes
        )
        answers, faults = {}, []
        for name in contents:
            try:
                answers[name] = _read(replies.get(name), name)
            except Malformed as problem:
                faults.append(Fault(name, f"{kind}: {problem}"))
        return self.keep(answers, faults)

    def keep(self, result: _T, faults: Sequence[Fault]) -> _T:
        """Note the faults that came with a result, and return the result."""
        for fault in faults:
            log(WARNING, "%s: %s", fault.hospital, fault.reason)
            self.reasons.setdefault(fault.hospital, messages.reason_text(fault.reason))
        return result


def _read(reply: Message | None, name: str) -> bytes:
    if reply is None:
        raise Malformed("no reply in time")
    if reply.has_error():
        raise Malformed(str(reply.error.reason))
    claim = reply.content.config_records.get(CLAIM, ConfigRecord())
    messages.check_name(claim, name)
    if claim.get("status") == DECLINED:
        raise Malformed(f"it declined: {messages.reason_text(str(claim.get('reason')))}")
    return read_data(reply.content)
