"""One hospital that is asked anything, by a server that is honest unless a test says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from support import SMALL, write_npz

from fl_ppae import client_app, message_arrays
from fl_ppae.config import RunConfig
from fl_ppae.messages import ARRAYS, CLAIM, CONFIG, ENCODINGS, PROJECTION, TRAIN
from fl_ppae.models.build import autoencoder_of
from fl_ppae.privacy.encodings import public_projection
from fl_ppae.privacy.events import Event
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.simulation.in_process import InProcessGrid

SIZE = 5  # numbers in a projected encoding
KEYS = {
    **SMALL,
    "data-file": "any.npz",
    "share": "updates+encodings",
    "noise-multiplier": 4.0,
    "target-epsilon": 900.0,
    "encoding-noise-epsilon": 4.0,
    "label-epsilon": 2.0,
    "projection-size": SIZE,
    "batch-size": 500,  # a sample rate of 1, for which the accountants are quick
}


class AskedHospital:
    """A deployed hospital with 130 records of its own, drawn from `seed`."""

    def __init__(self, folder: Path, seed: int = 0, node: dict[str, Any] | None = None, **keys: Any) -> None:
        folder.mkdir()
        self.data, self.state = write_npz(folder / "secret-patients.npz", 130, seed), folder / "state"
        self.node = {
            "partition-id": 0,
            "num-partitions": 1,
            "data-file": str(self.data),
            "state-dir": str(self.state),
            "site-dir": str(folder / "site"),
            "allow-unlimited-epsilon": True,
            "max-delta": 0.5,
            **(node or {}),
        }
        kebab = {key.replace("_", "-"): value for key, value in keys.items()}
        self.config = RunConfig.from_flat({**KEYS, **kebab})
        self.grid = InProcessGrid(client_app.app, self.config.to_flat(), [self.node])

    @property
    def events(self) -> tuple[Event, ...]:
        """What its ledger says is spent."""
        path = self.state / "ledger.jsonl"
        return read_ledger(path).events if path.exists() else ()

    def ask(self, kind: str, content: RecordDict) -> Message:
        (node,) = self.grid.get_node_ids()
        (reply,) = self.grid.send_and_receive([Message(content, dst_node_id=node, message_type=kind)])
        return reply

    def honest(self, kind: str, **config: Any) -> RecordDict:
        """The content of an honest server's message, with changes to its config; None removes a key."""
        asked = {TRAIN: {"server-round": 1}, ENCODINGS: {"part": "train", "chunk": 0}}.get(kind, {})
        kept = {key: value for key, value in {**asked, **config}.items() if value is not None}
        public = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
        encoder = autoencoder_of(self.config).encoder.state_dict()
        return RecordDict(
            {
                CONFIG: ConfigRecord(kept),
                ARRAYS: message_arrays.to_arrays(encoder),
                PROJECTION: message_arrays.projection_record(public_projection(public, SIZE)),
            }
        )

    def train_all(self) -> None:
        """Train every planned round."""
        for server_round in range(1, self.config.num_server_rounds + 1):
            reply = self.ask(TRAIN, self.honest(TRAIN, **{"server-round": server_round}))
            assert reply.content[CLAIM]["status"] == "trained"


def with_array(content: RecordDict, record: str, name: str, array: Array | None) -> RecordDict:
    """`content` with one array changed, added or, if None, removed."""
    arrays = ArrayRecord(dict(content[record]))
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    return RecordDict({**content, record: arrays})


def without(content: RecordDict, record: str) -> RecordDict:
    return RecordDict({name: value for name, value in content.items() if name != record})


def hostile_arrays(honest: Array) -> dict[str, Array]:
    """What a server may send in place of an honest array, by what is wrong with it."""
    numbers = honest.numpy()
    kind = numbers.dtype
    wrong = {
        "shape": np.zeros((*numbers.shape, 2), kind),
        "empty": np.zeros(0, kind),
        "integers": numbers.astype(np.int64),
        "half": numbers.astype(np.float16),
        "complex": numbers.astype(np.complex64),
        "big-endian": numbers.astype(kind.newbyteorder()),
        "bytes": np.zeros(numbers.shape, "S4"),
    }
    forged = {
        "garbage": b"no array",
        "nothing": b"",
        "short": honest.data[:-1],
        "long": honest.data + bytes(100),
    }
    return {
        **{name: Array(array) for name, array in wrong.items()},
        **{name: Array(honest.dtype, honest.shape, honest.stype, data) for name, data in forged.items()},
        "huge": Array(honest.dtype, (10**12,) * max(1, len(honest.shape)), honest.stype, honest.data),
        "other kind": Array(honest.dtype, honest.shape, "torch.pickle", honest.data),
    }


def numbers_of(reply: Message) -> list[str]:
    """Every text and number in a reply; of the claim's chain, which holds random bits, the length."""
    if reply.has_error():
        return [str(reply.error.reason)]
    return [
        f"{key}={len(str(value)) if key == 'chain' else value}"
        for record in (*reply.content.config_records.values(), *reply.content.metric_records.values())
        for key, value in sorted(record.items())
    ]


def extra_records() -> RecordDict:
    """Records that nobody asked for."""
    return RecordDict(
        {
            "more": ConfigRecord({"dp-scope": "none", "noise-multiplier": 0.0}),
            "metrics": MetricRecord({"num-examples": 10**9}),
            "images": ArrayRecord({"images": Array(np.zeros((3, 28, 28), np.float32))}),
        }
    )
