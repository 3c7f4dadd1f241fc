"""Collecting encodings: each hospital uploads once, in chunks that an ordinary network carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae import messages
from fl_ppae.messages import ARRAYS, CLAIM, CONFIG, DECLINED, ENCODINGS, Malformed

TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class Upload:
    """What one hospital uploaded of one part.

    Attributes:
        encodings: (N, *encoding) float32.
        labels: (N,) int64 of the train part; None of the test part.
    """

    encodings: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Refused:
    """Why there is no upload of a hospital."""

    reason: str


def collect(
    grid: Grid,
    nodes: Mapping[str, int],
    records: Mapping[str, int],
    part: str,
    encoding: Iterable[int],
    num_classes: int,
    run_directory: str,
    encoder: ArrayRecord | None,
) -> dict[str, Upload | Refused]:
    """All hospitals' encodings of `part` ("train" or "test"), by name, in the order of `nodes`.

    Args:
        records: how many encodings each hospital enrolled with; another number refuses its upload.
        encoding: shape of one encoding; another shape, type or a value that is not finite refuses the
            hospital's whole upload.
        encoder: the common encoder, sent with the first question; None if each uses its own.
    """
    shape = tuple(encoding)
    chunks: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {name: [] for name in nodes}
    totals = dict.fromkeys(nodes, 1)
    refused: dict[str, Refused] = {}
    chunk = 0
    while pending := [name for name in nodes if name not in refused and chunk < totals[name]]:
        config = ConfigRecord({"part": part, "chunk": chunk, "run-directory": run_directory})
        content = RecordDict({CONFIG: config})
        if chunk == 0 and encoder is not None:
            content[ARRAYS] = encoder
        questions = [Message(content, dst_node_id=nodes[name], message_type=ENCODINGS) for name in pending]
        replies = {
            reply.metadata.src_node_id: reply
            for reply in grid.send_and_receive(questions, timeout=TIMEOUT_SECONDS)
        }
        for name in pending:
            try:
                encodings, labels, total = _read(replies.get(nodes[name]), shape, part, num_classes)
                if chunk > 0 and total != totals[name]:
                    raise Malformed(f"it announced {totals[name]} chunks, then {total}")
                totals[name] = total
                chunks[name].append((encodings, labels))
            except Malformed as problem:
                log(WARNING, "no %s encodings from %s: %s", part, name, problem)
                refused[name] = Refused(str(problem))
        chunk += 1
    log(INFO, "%s encodings: %s chunks at most from %s hospitals", part, chunk, len(nodes) - len(refused))
    uploads = {name: refused.get(name) or _join(chunks[name]) for name in nodes}
    for name, upload in uploads.items():
        if isinstance(upload, Upload) and len(upload.encodings) != records[name]:
            uploads[name] = Refused(f"it sent {len(upload.encodings)} encodings, not {records[name]}")
    return uploads


def _read(
    reply: Message | None, shape: tuple[int, ...], part: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray | None, int]:
    if reply is None:
        raise Malformed("no reply in time")
    if reply.has_error():
        raise Malformed(reply.error.reason)
    claim = reply.content.config_records.get(CLAIM)
    if claim is not None and claim.get("status") == DECLINED:
        raise Malformed(f"it declined: {claim.get('reason')!s}")
    return messages.read_chunk(reply.content, shape, part == "train", num_classes)


def _join(chunks: list[tuple[np.ndarray, np.ndarray | None]]) -> Upload:
    labels = [part for _, part in chunks if part is not None]
    return Upload(
        np.concatenate([encodings for encodings, _ in chunks]), np.concatenate(labels) if labels else None
    )
