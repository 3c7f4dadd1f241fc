"""A malicious server that asks one simulated hospital, in a folder of its own, through its own handlers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from fl_ppae import client_app, message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.errors import UserError
from fl_ppae.hospital.simulated import write_deal
from fl_ppae.simulation.in_process import InProcessGrid

Records = dict[str, ArrayRecord | ConfigRecord]
Request = dict[str, str | int]


@dataclass(frozen=True)
class HostileServer:
    """What asks the hospital, in any order and with any weights."""

    folder: Path
    grid: InProcessGrid

    def train(self, encoder: Mapping[str, Tensor], server_round: int) -> RecordDict:
        """The reply to the order to train a round from `encoder`.

        Raises:
            UserError: the hospital failed or declined.
        """
        records: Records = {messages.ARRAYS: message_arrays.to_arrays(encoder)}
        order: Request = {"server-round": server_round}
        return self._ask(f"round {server_round}", messages.TRAIN, messages.TRAINED, records, order)

    def encodings(self, encoder: Mapping[str, Tensor], projection: ArrayRecord, chunk: int) -> RecordDict:
        """The reply to the request for a chunk of the train part's encodings. Raises as `train`."""
        records: Records = {
            messages.ARRAYS: message_arrays.to_arrays(encoder),
            messages.PROJECTION: projection,
        }
        request: Request = {"part": "train", "chunk": chunk}
        return self._ask(f"chunk {chunk}", messages.ENCODINGS, messages.READY, records, request)

    def _ask(self, what: str, kind: str, wanted: str, records: Records, request: Request) -> RecordDict:
        config = ConfigRecord({"run-directory": str(self.folder), **request})
        (node,) = self.grid.get_node_ids()
        content = RecordDict({**records, messages.CONFIG: config})
        message = Message(content, dst_node_id=node, message_type=kind)
        (reply,) = self.grid.send_and_receive([message])
        if reply.has_error():
            raise UserError(f"the hospital failed at {what}: {reply.error.reason}")
        claim = reply.content.config_records[messages.CLAIM]
        if claim["status"] != wanted:
            raise UserError(f"the hospital declined {what}: {claim['reason']!s}")
        return reply.content


@contextmanager
def hostile_server(deal: Deal, config: RunConfig, index: int, hospitals: int) -> Iterator[HostileServer]:
    """Ask hospital `index`, whose records are all of `deal`; its folder is removed at the end."""
    with TemporaryDirectory(prefix="fl-ppae-audit-") as name:
        folder = Path(name)
        write_deal(deal, folder)
        node = {"partition-id": index, "num-partitions": hospitals}
        yield HostileServer(folder, InProcessGrid(client_app.app, config.to_flat(), [node]))
