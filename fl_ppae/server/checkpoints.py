"""When the server writes a checkpoint, and what is in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import nn

from fl_ppae.errors import UserError
from fl_ppae.protection import SECAGG
from fl_ppae.runs.checkpoint import FILE, Checkpoint, write_checkpoint
from fl_ppae.server.session import Session
from strategies.kept_accounts import account_document
from strategies.server_optimiser import ServerAdam

SECONDS = 30.0  # between checkpoints by time
MOST_ROUNDS = 100  # between them; hospitals keep their replies for as many
_ENCODER, _OPTIMISER = "encoder/", "optimiser/"
_BY_TIME, _NEVER = -1, 0


class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        round: after which there is one; 0: before the first round.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._time = time.monotonic()
        self._refuted = session.server_ledger.refuted()
        self.round = 0 if session.checkpoint is None else session.checkpoint.round

    def is_due(self, server_round: int) -> bool:
        """Whether there should be one after this round, whatever comes next.

        A masked round can't be answered twice, so each has its own; a refuted claim is kept at once.
        """
        config = self._session.config
        every = config.checkpoint_every
        if every == _NEVER:
            return False
        by_time = every == _BY_TIME and time.monotonic() - self._time >= SECONDS
        enough = server_round - self.round >= (MOST_ROUNDS if every == _BY_TIME else every)
        refuted = self._session.server_ledger.refuted() != self._refuted
        return by_time or enough or refuted or config.protection == SECAGG

    def write(
        self, server_round: int, arrays: ArrayRecord, optimiser: ServerAdam | None, *, learned: bool
    ) -> None:
        """Write one, unless the run is to have none; the tables are on disk before it is.

        `learned`: whether some round so far changed the common weights, or could have.
        """
        session = self._session
        if session.config.checkpoint_every == _NEVER:
            return
        session.run.sync_tables()
        kept = {_ENCODER + name: array.numpy() for name, array in arrays.items()}
        if optimiser is not None:
            kept |= {_OPTIMISER + name: value for name, value in optimiser.state().items()}
        accounts = session.server_ledger.accounts
        documents = {name: account_document(account) for name, account in accounts.items()}
        state = {"accounts": documents, "learned": learned}
        write_checkpoint(session.run.path, Checkpoint(session.run_id, server_round, kept, state))
        self.round, self._time = server_round, time.monotonic()
        self._refuted = session.server_ledger.refuted()


def restore(
    checkpoint: Checkpoint, run_directory: Path, shared: nn.Module, optimiser: ServerAdam | None
) -> bool:
    """Put the common weights and the state of the server's optimiser back; returns `learned`, see `write`.

    Raises:
        UserError: the checkpoint's are not those of this run's networks.
    """
    weights = _within(checkpoint.arrays, _ENCODER)
    try:
        tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        shared.load_state_dict(tensors)
        if optimiser is not None:
            optimiser.restore(weights, _within(checkpoint.arrays, _OPTIMISER))
        return bool(checkpoint.state["learned"])
    except (KeyError, RuntimeError, TypeError):
        raise UserError(
            f"{run_directory / FILE} does not hold this run's networks; start the run again"
        ) from None


def _within(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
