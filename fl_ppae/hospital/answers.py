"""A hospital's replies to finished rounds, kept until the server has a checkpoint after them.

A run that was interrupted asks for some rounds again. Where run, round and weights are the same, the kept
reply is sent again, bit for bit.

Guarantee: a reply sent again is the same release, so nothing is paid for it. Whatever else is asked for is
trained, noised and paid for anew, so no noise is ever used for two different inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fl_ppae.files import write_atomically
from fl_ppae.hospital.requests import TrainRequest
from fl_ppae.hospital.state import HospitalState, TrainingState

MOST = 100  # rounds that are kept, whatever a server says of its checkpoints


@dataclass(frozen=True)
class Answer:
    """What a finished round sends beside its claim: arrays by name, and metrics."""

    arrays: Mapping[str, np.ndarray]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Answers:
    """The kept answers of one hospital in one run. Hold the hospital's lock.

    Attributes:
        has_state: whether local training has a state that lasts from round to round.
    """

    state: HospitalState
    run: str
    has_state: bool

    def find(self, request: TrainRequest, saved: TrainingState | None) -> Answer | None:
        """The answer to the same request; None if there is none, none that is finished or can be read.

        `saved`: the training state. It is written after the answer, and both are there or the round is not
        finished.
        """
        reached = saved.round if saved is not None and saved.run == self.run else 0
        if self.has_state and request.server_round > reached:
            return None
        try:
            with safe_open(self._path(request.server_round), "numpy") as file:
                written = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if written["asked"] != _digest(request):
                return None
            return Answer(arrays, json.loads(written["metrics"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def keep(self, request: TrainRequest, answer: Answer) -> None:
        """Keep an answer, before the training state that belongs to it, and drop those no longer needed."""
        arrays = {name: np.asarray(array, order="C") for name, array in answer.arrays.items()}
        written = {"asked": _digest(request), "metrics": json.dumps(dict(answer.metrics))}
        path = self._path(request.server_round)
        write_atomically(path, save(arrays, written), durable=self.state.durable)
        oldest = max(request.checkpointed, request.server_round - MOST)
        for other, server_round in self._kept():
            if server_round <= oldest:
                other.unlink()

    def _path(self, server_round: int) -> Path:
        return self.state.directory / "answers" / f"{self.run}-{server_round}.safetensors"

    def _kept(self) -> Iterator[tuple[Path, int]]:
        """The files, each with its round; 0 for those of other runs."""
        for path in self._path(0).parent.glob("*.safetensors"):
            run, _, server_round = path.stem.rpartition("-")
            yield path, int(server_round) if run == self.run else 0


def _digest(request: TrainRequest) -> str:
    found = hashlib.sha256(str(request.server_round).encode())
    for name, tensor in sorted(request.encoder.items()):
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()
