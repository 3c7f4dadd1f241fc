"""What a hospital keeps on its own disk: ledger, encoder, decoder or head, optimiser and round.

None of this is ever sent. The ledger is written before a round's noise is drawn; the rest is replaced as
a whole after the round, so a crash in between wastes budget but never understates what was spent.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from fl_ppae.errors import UserError
from fl_ppae.files import write_atomically
from fl_ppae.hospital.training import Moments
from fl_ppae.privacy.counter import ACCEPT, Counter
from fl_ppae.privacy.events import Declared, Event
from fl_ppae.privacy.ledger import Ledger, agreed_terms, declare, open_run, read_ledger, set_aside, verify
from fl_ppae.privacy.terms import Terms


@dataclass(frozen=True)
class TrainingState:
    """The state of local training after a round.

    Attributes:
        encoder, partner: state dicts; the partner is the decoder or the task head.
        moments: the optimiser's.
    """

    run: str
    round: int
    encoder: dict[str, Tensor]
    partner: dict[str, Tensor]
    moments: Moments


_PARTS = ("encoder", "partner", "moments")
_WRITTEN = "written"


@dataclass(frozen=True)
class _Written:
    """The fields of a `TrainingState` that are not arrays.

    Attributes:
        paid: number of events in the ledger; only in files from before ledgers had counters.
    """

    run: str
    round: int
    paid: int = 0


@dataclass(frozen=True)
class HospitalState:
    """One hospital's state directory.

    Attributes:
        durable: True if training must survive a crash of the machine, not only of the process. The ledger
            always does.
        counter_path: of the ledger's counter; None for beside the ledger, where it guards against less.
        claim: called before each payment, so that the records that pay belong to this ledger from then on.
    """

    directory: Path
    durable: bool = True
    counter_path: Path | None = None
    claim: Callable[[], None] | None = None

    @property
    def ledger_path(self) -> Path:
        """The ledger file."""
        return self.directory / "ledger.jsonl"

    @property
    def counter(self) -> Counter:
        """The ledger's counter."""
        return Counter(self.counter_path or self.directory / "counter.json", self.durable)

    @property
    def older_ledgers(self) -> tuple[Path, ...]:
        """Ledgers from when each data file had its own, in a folder named by its MD5."""
        return tuple(
            path
            for path in sorted(self.directory.glob(f"*/{self.ledger_path.name}"))
            if re.fullmatch(r"[0-9a-f]{32}", path.parent.name)
        )

    @property
    def training_path(self) -> Path:
        """The file with everything else that is kept from round to round."""
        return self.directory / "training.safetensors"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the hospital's lock, from reading the ledger until what depends on it is written.

        Raises:
            UserError: the file system has no locks, or the directory can't be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        held = self._lock
        try:
            held.acquire()
        except OSError as error:
            raise UserError(
                f"{self.directory} can't be locked ({error.strerror}); use a state-dir on a local disk"
            ) from None
        try:
            yield
        finally:
            held.release()

    @property
    def _lock(self) -> FileLock:
        """One object per path in this process while it is held, so that anyone can ask whether it is."""
        return FileLock(self.directory / ".lock", is_singleton=True, fallback_to_soft=False)

    def _check_locked(self) -> None:
        if not self._lock.is_locked:
            raise RuntimeError(f"{self.directory} was about to be read and changed without its lock")

    def open_ledger(self, terms: Terms) -> Ledger:
        """The ledger under a run's terms. Hold the lock.

        Raises:
            UserError: the ledger is missing, altered or shortened, or it holds other terms for the same run.
        """
        self._check_locked()
        self._check_paid()
        return open_run(self.ledger_path, terms, self.counter, older=self.older_ledgers, claim=self.claim)

    def verify(self) -> tuple[Event, ...]:
        """All events in the ledger, if it is in order. Hold the lock.

        Raises:
            UserError: as `open_ledger`.
        """
        self._check_locked()
        self._check_paid()
        return verify(self.ledger_path, self.counter, self.older_ledgers)

    def declare(self, cost: Declared) -> None:
        """Charge `cost` for what the ledger has lost, after which it is in order. Hold the lock."""
        self._check_locked()
        for old in self.older_ledgers:
            try:
                read_ledger(old)
            except UserError:
                set_aside(old)
        declare(self.ledger_path, self.counter, cost)
        trained = self.load_training()
        if trained is not None:
            self.save_training(trained)  # without the number of events that an older version kept there

    def _check_paid(self) -> None:
        written = self._written()
        paid = written.paid if written is not None else 0
        if paid and paid > len(read_ledger(self.ledger_path).events):
            raise UserError(
                f"the ledger {self.ledger_path} has lost events that its hospital has paid; "
                f"restore it from a backup, or {ACCEPT}"
            )

    def agreed_terms(self, run: str) -> Terms | None:
        """The terms already agreed for `run`, so that noise is calibrated only once."""
        return agreed_terms(self.ledger_path, run)

    def load_training(self) -> TrainingState | None:
        """The saved training state; None before the first round.

        Raises:
            UserError: the file is damaged.
        """
        written = self._written()
        if written is None:
            return None
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for key, tensor in load(self.training_path.read_bytes()).items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        return TrainingState(written.run, written.round, **parts)

    def save_training(self, state: TrainingState) -> None:
        """Replace what `load_training` returns, atomically. Hold the lock."""
        self._check_locked()
        tensors = {
            f"{part}/{name}": value.detach().contiguous()
            for part in _PARTS
            for name, value in getattr(state, part).items()
        }
        written = json.dumps({"run": state.run, "round": state.round})
        write_atomically(self.training_path, save(tensors, {_WRITTEN: written}), durable=self.durable)

    def _written(self) -> _Written | None:
        """The file's fields, without its arrays."""
        if not self.training_path.exists():
            return None
        try:
            with safe_open(self.training_path, "numpy") as file:  # "pt" refuses a path that is not UTF-8
                return _Written(**json.loads(file.metadata()[_WRITTEN]))
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{self.training_path} is damaged; restore it from a backup, or remove it with the whole run"
            ) from None

    def load_masking(self, run: str) -> bytes | None:
        """The state of secure aggregation in `run`; None before its first block."""
        path = self._masking_path(run)
        return path.read_bytes() if path.exists() else None

    def save_masking(self, run: str, state: bytes) -> None:
        """Replace what `load_masking` returns, atomically. Hold the lock."""
        self._check_locked()
        write_atomically(self._masking_path(run), state, durable=self.durable)

    def silent_masking(self, seconds: float) -> dict[str, bytes]:
        """What `load_masking` returns, for each run that has not changed it for so long."""
        paths = {path.stem.removeprefix("secagg-"): path for path in self.directory.glob("secagg-*.state")}
        latest = time.time() - seconds
        return {run: path.read_bytes() for run, path in paths.items() if path.stat().st_mtime < latest}

    def _masking_path(self, run: str) -> Path:
        return self.directory / f"secagg-{run}.state"

    def release_path(self, run: str, part: str) -> Path:
        """File of the encodings of `part` (train or test) released in `run`: made once, then only re-sent."""
        return self.directory / f"released-{run}-{part}.npy"

    def label_path(self, run: str, part: str) -> Path:
        """File of the labels released with the encodings of `part`."""
        return self.directory / f"released-{run}-{part}-labels.npy"

    def save_release(self, run: str, part: str, encodings: np.ndarray, labels: np.ndarray | None) -> None:
        """Save a release so that a chunk requested twice is identical; encodings are written last.

        Hold the lock.
        """
        self._check_locked()
        if labels is not None:
            write_atomically(self.label_path(run, part), _npy(labels))
        write_atomically(self.release_path(run, part), _npy(encodings))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
