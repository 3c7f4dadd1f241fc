"""What a hospital keeps on its own disk: ledger, encoder, decoder or head, optimiser and round.

None of this is ever sent. The ledger is written before a round's noise is drawn; the rest is replaced as
a whole after the round, so a crash in between wastes budget but never understates what was spent.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fl_ppae.errors import UserError
from fl_ppae.files import write_atomically
from fl_ppae.hospital.training import Moments
from fl_ppae.privacy.ledger import Ledger, Terms, open_run, read_ledger


@dataclass(frozen=True)
class TrainingState:
    """The state of local training after a round.

    Attributes:
        encoder, partner: state dicts; the partner is the decoder or the task head.
        moments: the optimiser's.
        paid: number of events in the ledger when this was written.
    """

    run: str
    round: int
    encoder: dict[str, Tensor]
    partner: dict[str, Tensor]
    moments: Moments
    paid: int


_PARTS = ("encoder", "partner", "moments")
_WRITTEN = "written"


@dataclass(frozen=True)
class _Written:
    """The fields of a `TrainingState` that are not arrays."""

    run: str
    round: int
    paid: int


@dataclass(frozen=True)
class HospitalState:
    """One hospital's state directory.

    Attributes:
        durable: True if training must survive a crash of the machine, not only of the process. The ledger
            always does.
    """

    directory: Path
    durable: bool = True

    @property
    def ledger_path(self) -> Path:
        """The ledger file."""
        return self.directory / "ledger.jsonl"

    @property
    def training_path(self) -> Path:
        """The file with everything else that is kept from round to round."""
        return self.directory / "training.safetensors"

    def lock(self) -> FileLock:
        """The lock to hold from reading the ledger until a round is paid for."""
        return FileLock(self.directory / ".lock")

    def open_ledger(self, terms: Terms) -> Ledger:
        """The ledger under a run's terms.

        Raises:
            UserError: the hospital has trained and its ledger is missing, altered or shortened, or the
                ledger holds other terms for the same run.
        """
        written = self._written()
        if written is not None and written.paid > len(read_ledger(self.ledger_path).events):
            raise UserError(
                f"the ledger {self.ledger_path} has lost events that its hospital has paid; "
                "restore it from a backup"
            )
        return open_run(self.ledger_path, terms)

    def agreed_terms(self, run: str) -> Terms | None:
        """The terms already agreed for `run`, so that noise is calibrated only once."""
        if not self.ledger_path.exists():
            return None
        terms = read_ledger(self.ledger_path).terms
        return terms if terms.run == run else None

    def load_training(self) -> TrainingState | None:
        """The saved training state; None before the first round.

        Raises:
            UserError: the file is damaged.
        """
        written = self._written()
        if written is None:
            return None
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        with safe_open(self.training_path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is no mapping)
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key)
        return TrainingState(written.run, written.round, **parts, paid=written.paid)

    def save_training(self, state: TrainingState) -> None:
        """Replace what `load_training` returns, atomically."""
        tensors = {
            f"{part}/{name}": value.detach().contiguous()
            for part in _PARTS
            for name, value in getattr(state, part).items()
        }
        written = json.dumps({"run": state.run, "round": state.round, "paid": state.paid})
        write_atomically(self.training_path, save(tensors, {_WRITTEN: written}), durable=self.durable)

    def _written(self) -> _Written | None:
        """The file's fields, without its arrays."""
        if not self.training_path.exists():
            return None
        try:
            with safe_open(self.training_path, "pt") as file:
                return _Written(**json.loads(file.metadata()[_WRITTEN]))
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{self.training_path} is damaged; restore it from a backup, or remove it with the whole run"
            ) from None

    def remember_paid(self, events: int) -> None:
        """Record the number of events outside the ledger too, so that a shortened ledger is noticed."""
        trained = self.load_training()
        if trained is not None:
            self.save_training(replace(trained, paid=events))

    def release_path(self, run: str, part: str) -> Path:
        """File of the encodings of `part` (train or test) released in `run`: made once, then only re-sent."""
        return self.directory / f"released-{run}-{part}.npy"

    def label_path(self, run: str, part: str) -> Path:
        """File of the labels released with the encodings of `part`."""
        return self.directory / f"released-{run}-{part}-labels.npy"

    def save_release(self, run: str, part: str, encodings: np.ndarray, labels: np.ndarray | None) -> None:
        """Save a release so that a chunk requested twice is identical; encodings are written last."""
        if labels is not None:
            write_atomically(self.label_path(run, part), _npy(labels))
        write_atomically(self.release_path(run, part), _npy(encodings))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
