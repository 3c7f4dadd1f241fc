"""Trains an encoder by a real federated run in this process, without the run's baselines and reports."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.privacy.figures import largest
from fl_ppae.runs.directory import create_run_directory
from fl_ppae.server.evaluation import Measured
from fl_ppae.server.rounds import train_all_rounds
from fl_ppae.server.session import start_session
from fl_ppae.server.start import common_start
from fl_ppae.simulation.in_process import simulated_grid


@dataclass(frozen=True)
class FederatedEncoder:
    """The result of a federated run.

    Attributes:
        epsilon: of the encoder updates, by hospital, from the ledger's events; empty without DP.
        basis: what stands behind it: `formal`, `nominal` (scope encoder), `none` (no DP) or `refuted`.
        measured: the server's last evaluation; its classifier is fitted to the server's own split.
    """

    encoder: nn.Module
    epsilon: dict[str, float]
    basis: str
    measured: Measured


def train_federated(config: RunConfig, deal: Deal) -> FederatedEncoder:
    """Run all rounds of `config` with the same messages, accounting and noise as `fl-ppae run --in-process`.

    Raises:
        UserError: there are fewer test records than hospitals. RuntimeError: no hospital trained.
    """
    model = common_start(config, deal.dataset)
    with tempfile.TemporaryDirectory(prefix="fl-ppae-cell-") as folder:
        run = create_run_directory(Path(folder) / "run", "study")
        grid = simulated_grid(config, len(deal.train))
        session = start_session(grid, config, "study", run, deal)
        measured = train_all_rounds(session, model)
    assert measured is not None  # the last round is always evaluated
    figures = session.server_ledger.figures()
    spent = {name: figure.epsilon for name, figure in figures.items() if figure.epsilon is not None}
    return FederatedEncoder(model.encoder, spent, largest(figures.values()).basis, measured)
