"""Collects encodings: each hospital uploads once, in chunks that an ordinary network can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae import message_arrays, messages
from fl_ppae.data.spec import LabelFormat
from fl_ppae.messages import ARRAYS, CLAIM, CONFIG, DECLINED, ENCODINGS, PROJECTION, Malformed
from fl_ppae.models.codes import EncodingFormat
from fl_ppae.privacy.events import TRAIN_PART, Event
from strategies.replies import by_hospital
from strategies.server_ledger import ServerLedger


@dataclass(frozen=True)
class Upload:
    """One hospital's upload of one part.

    Attributes:
        encodings: (N, *encoding) float32.
        labels: (N,) int64 for the train part, or label sets (N, K); None for the test part.
    """

    encodings: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Refused:
    """Why a hospital has no upload."""

    reason: str


@dataclass(frozen=True)
class Request:
    """A request for encodings.

    Attributes:
        part: "train" or "test".
        server_round: the last round, to which the upload is charged.
        encoding: how one encoding is sent.
        label: what a record's label is.
        encoder: the common encoder, sent with the first chunk's message; None if each hospital has its own.
        where: config of every message of the run.
        projection: to apply before noise, sent with the encoder; None if encodings are released plain.
        reply_timeout: seconds for each chunk.
    """

    part: str
    server_round: int
    encoding: EncodingFormat
    label: LabelFormat
    where: Mapping[str, str]
    encoder: ArrayRecord | None
    projection: ArrayRecord | None
    reply_timeout: float

    def message(self, node: int, chunk: int) -> Message:
        """The message that asks `node` for one chunk."""
        config = ConfigRecord({**self.where, "part": self.part, "chunk": chunk})
        content = RecordDict({CONFIG: config})
        for name, record in ((ARRAYS, self.encoder), (PROJECTION, self.projection)):
            if chunk == 0 and record is not None:
                content[name] = record
        return Message(content, dst_node_id=node, message_type=ENCODINGS)


def collect(
    grid: Grid,
    server_ledger: ServerLedger,
    nodes: Mapping[str, int],
    records: Mapping[str, int],
    request: Request,
) -> dict[str, Upload | Refused]:
    """Charge all hospitals for their encodings of one part and collect them, in the order of `nodes`.

    `records`: the number of encodings each hospital enrolled with, which is also the number of its chunks and
    of the rows in each. The whole upload is refused at the first chunk that differs, whose shape or type is
    wrong, that holds a value that is not finite, or whose events don't hold.
    """
    part = request.part
    for name in nodes:
        server_ledger.charge_upload(name, part, request.server_round)
    chunks: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {name: [] for name in nodes}
    totals = {name: message_arrays.chunks_of(records[name], request.encoding) for name in nodes}
    rows = message_arrays.rows_of_a_chunk(request.encoding)
    refused: dict[str, Refused] = {}
    chunk = 0
    while pending := [name for name in nodes if name not in refused and chunk < totals[name]]:
        questions = [request.message(nodes[name], chunk) for name in pending]
        replies = by_hospital(grid.send_and_receive(questions, timeout=request.reply_timeout), nodes)
        for name in pending:
            expected = min(rows, records[name] - chunk * rows)
            try:
                encodings, labels, total = _read(replies.get(name), name, server_ledger, request, expected)
                if total != totals[name]:
                    raise Malformed(
                        f"it announces {total} chunks; {records[name]} encodings make {totals[name]}"
                    )
                chunks[name].append((encodings, labels))
            except Malformed as problem:
                log(WARNING, "no %s encodings from %s: %s", part, name, problem)
                refused[name] = Refused(str(problem))
                chunks[name].clear()
        chunk += 1
    log(INFO, "%s encodings: %s chunks at most from %s hospitals", part, chunk, len(nodes) - len(refused))
    return {name: refused.get(name) or _join(chunks.pop(name)) for name in nodes}


def _read(
    reply: Message | None, name: str, server_ledger: ServerLedger, request: Request, rows: int
) -> tuple[np.ndarray, np.ndarray | None, int]:
    if reply is None:
        raise Malformed("no reply in time")
    if reply.has_error():
        raise Malformed(str(reply.error.reason))
    try:
        claim, events, chain = _claim(reply)
    except Malformed as unreadable:  # then it does not hold
        server_ledger.refute(name, str(unreadable))
        raise
    try:
        messages.check_name(claim, name)
    except Malformed as forged:
        server_ledger.exclude(name, str(forged))
        raise
    declined = claim.get("status") == DECLINED
    part, server_round = request.part, request.server_round
    if problem := server_ledger.settle_upload(name, events, chain, part, server_round, declined=declined):
        raise Malformed(problem)
    if declined:
        raise Malformed(f"it declined: {messages.reason_text(str(claim.get('reason')))}")
    label = request.label if part == TRAIN_PART else None
    messages.check_records(reply.content, {ARRAYS, CLAIM})
    return message_arrays.read_chunk(reply.content, request.encoding, label, rows)


def _claim(reply: Message) -> tuple[ConfigRecord, tuple[Event, ...], str]:
    claim = reply.content.config_records.get(CLAIM)
    if claim is None or "events" not in claim:
        raise Malformed("its upload has no claim with events")
    return claim, messages.read_events(claim), messages.read_chain(claim)


def _join(chunks: list[tuple[np.ndarray, np.ndarray | None]]) -> Upload:
    labels = [part for _, part in chunks if part is not None]
    return Upload(
        np.concatenate([encodings for encodings, _ in chunks]), np.concatenate(labels) if labels else None
    )
