"""What a round of training makes: the update to be sent, and what the hospital keeps for the next round.

Where a round is passes over the records, the update is the trained encoder. Where it is one step, the update
is the mean gradient: the noised sum of one batch / the batch's expected size, a public number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_ppae.adversary import FREE_RIDER, behaviour_of, update_to_send
from fl_ppae.config import RunConfig
from fl_ppae.hardware import device_of, limited_threads
from fl_ppae.hospital.fixed_codes import on_codes
from fl_ppae.hospital.local_model import resumed_model
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.requests import TrainRequest
from fl_ppae.hospital.site import Hospital
from fl_ppae.hospital.state import TrainingState
from fl_ppae.hospital.training import Diagnostics, round_terms, train_round
from fl_ppae.models.build import shared_of, update_shapes_of
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.randomness import Streams
from fl_ppae.privacy.terms import Terms
from fl_ppae.protection import JOINT


@dataclass(frozen=True)
class Update:
    """The result of one round.

    Attributes:
        sent: what may leave if the run shares updates, float32, by the names of `update_shapes_of`.
        summand: the same update as a sum of masked ones takes it, float64, see `masked_updates`.
        kept: the training state after the round; None if there is nothing to keep.
        diagnostics: None if nothing was trained.
    """

    sent: dict[str, Tensor]
    summand: dict[str, Tensor]
    kept: TrainingState | None
    diagnostics: Diagnostics | None


@dataclass(frozen=True)
class LocalRound:
    """What a hospital trains in a round that it has paid for under `terms`, and with which randomness."""

    hospital: Hospital
    config: RunConfig
    terms: Terms
    request: TrainRequest
    streams: Streams

    @property
    def behaviour(self) -> str:
        """Honest, or the adversary that the hospital plays."""
        return behaviour_of(self.config, self.hospital.identity.index)


def make_update(asked: LocalRound, saved: TrainingState | None) -> Update:
    """Train one round; `saved` is the training state after the last one.

    An adversary alters its update afterwards, or trains nothing.
    """
    with limited_threads(asked.config.threads_per_hospital):
        return _one_step(asked) if asked.config.local_steps else _passes(asked, saved)


def _passes(asked: LocalRound, saved: TrainingState | None) -> Update:
    config, terms, request = asked.config, asked.terms, asked.request
    model, moments = resumed_model(config, terms.run, saved, request.encoder)
    records = asked.hospital.train
    received = {name: value.clone() for name, value in _learning(config, model).items()}
    diagnostics = None
    if asked.behaviour != FREE_RIDER:
        moments, diagnostics = train_round(model, records, round_terms(terms, config), asked.streams, moments)
    kept = TrainingState(
        terms.run, request.server_round, model.encoder.state_dict(), model.partner.state_dict(), moments
    )
    sent = update_to_send(asked.behaviour, received, _learning(config, model), asked.streams.noise)
    summand = {name: len(records) * (sent[name].double() - old.double()) for name, old in received.items()}
    return Update(sent, summand, kept, diagnostics)


def _one_step(asked: LocalRound) -> Update:
    config, terms, records = asked.config, asked.terms, asked.hospital.train
    model, _ = resumed_model(config, terms.run, None, asked.request.encoder)
    nothing = {name: torch.zeros_like(value) for name, value in _learning(config, model).items()}
    sums, diagnostics = {name: value.double() for name, value in nothing.items()}, None
    if asked.behaviour != FREE_RIDER:
        if config.trains == "head":
            objective, device = OBJECTIVES[config.objective], device_of(config.device)
            model, records = on_codes(model, records, objective, device, config.views)
        noised, diagnostics = one_step(model, records, round_terms(terms, config), asked.streams)
        sums = dict(zip(nothing, noised, strict=True))
    expected_batch = terms.sample_rate * len(records)
    gradient = {name: (total / expected_batch).float() for name, total in sums.items()}
    sent = update_to_send(asked.behaviour, nothing, gradient, asked.streams.noise)
    on_grid = config.noise == JOINT
    summand = sums if on_grid else {name: total / terms.sample_rate for name, total in sums.items()}
    return Update(sent, summand, None, diagnostics)


def _learning(config: RunConfig, model: LocalModel) -> dict[str, Tensor]:
    """The arrays of what is shared and learns, by name."""
    state = shared_of(config, model).state_dict()
    return {name: state[name] for name in update_shapes_of(config)}
