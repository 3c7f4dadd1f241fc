"""What a hospital keeps on its own disk: ledger, encoder, decoder or head, optimiser, round.

Nothing here travels. The ledger is written before a round's noise is drawn; the rest is replaced
as a whole after the round, so that a crash in between costs budget but never under-states it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fl_ppae.errors import UserError
from fl_ppae.files import write_atomically
from fl_ppae.privacy.ledger import Ledger, Terms, open_run, read_ledger


@dataclass(frozen=True)
class TrainingState:
    """Where local training stands after a round.

    Attributes:
        encoder, partner: state dicts; the partner is the decoder or the task head.
        optimisers: Adam's state, one per parameter group.
        paid: events in the ledger when this was written.
    """

    run: str
    round: int
    encoder: dict[str, Tensor]
    partner: dict[str, Tensor]
    optimisers: list[dict[str, Any]]
    paid: int


@dataclass(frozen=True)
class HospitalState:
    """One hospital's state directory.

    Attributes:
        durable: True if training has to survive a crash of the machine too, and not of a process alone. The
            ledger always does.
    """

    directory: Path
    durable: bool = True

    @property
    def ledger_path(self) -> Path:
        """The ledger file."""
        return self.directory / "ledger.jsonl"

    @property
    def training_path(self) -> Path:
        """Everything else that lasts from round to round."""
        return self.directory / "training.pt"

    def lock(self) -> FileLock:
        """Held from reading the ledger until a round is paid."""
        return FileLock(self.directory / ".lock")

    def open_ledger(self, terms: Terms, trained: TrainingState | None = None) -> Ledger:
        """The ledger under a run's terms. `trained`: what `load_training` gave, if it was asked already.

        Raises:
            UserError: missing, altered or shortened although this hospital has trained, or other terms
                for the same run.
        """
        trained = trained or self.load_training()
        if trained is not None and trained.paid > len(read_ledger(self.ledger_path).events):
            raise UserError(
                f"the ledger {self.ledger_path} has lost events that its hospital has paid; "
                "restore it from a backup"
            )
        return open_run(self.ledger_path, terms)

    def agreed_terms(self, run: str) -> Terms | None:
        """The terms already agreed for `run`, so that noise is calibrated once and not every round."""
        if not self.ledger_path.exists():
            return None
        terms = read_ledger(self.ledger_path).terms
        return terms if terms.run == run else None

    def load_training(self) -> TrainingState | None:
        """Where training stands; None before the first round."""
        if not self.training_path.exists():
            return None
        values = torch.load(self.training_path, weights_only=True)
        return TrainingState(**values)

    def save_training(self, state: TrainingState) -> None:
        """Replace what `load_training` gives, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(vars(state), buffer)
        write_atomically(self.training_path, buffer.getvalue(), durable=self.durable)

    def remember_paid(self, events: int) -> None:
        """Keep the number of events apart from the ledger too, so that a shortened one is noticed."""
        trained = self.load_training()
        if trained is not None:
            self.save_training(replace(trained, paid=events))

    def release_path(self, run: str, part: str) -> Path:
        """The encodings of `part` (train or test) as released in `run`: made once, then only re-sent."""
        return self.directory / f"released-{run}-{part}.npy"

    def label_path(self, run: str, part: str) -> Path:
        """The labels as released beside the encodings of `part`."""
        return self.directory / f"released-{run}-{part}-labels.npy"

    def save_release(self, run: str, part: str, encodings: np.ndarray, labels: np.ndarray | None) -> None:
        """Keep a release so that a chunk asked for twice is the same bits twice; the encodings last."""
        if labels is not None:
            write_atomically(self.label_path(run, part), _npy(labels))
        write_atomically(self.release_path(run, part), _npy(encodings))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
