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
from fl_ppae.hardware import limited_threads
from fl_ppae.hospital.local_model import resumed_model
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.requests import TrainRequest
from fl_ppae.hospital.site import Hospital
from fl_ppae.hospital.state import TrainingState
from fl_ppae.hospital.training import Diagnostics, round_terms, train_round
from fl_ppae.models.build import shared_of
from fl_ppae.privacy.randomness import Streams
from fl_ppae.privacy.terms import Terms
from fl_ppae.protection import JOINT


@dataclass(frozen=True)
class Update:
    """The result of one round.

    Attributes:
        sent: what may leave if the run shares updates, float32, by the name of each array of `shared_of`.
        summand: the same update as a sum of masked ones takes it, float64, see `masked_updates`.
        kept: the training state after the round; None if there is nothing to keep.
        diagnostics: None if nothing was trained.
    """

    sent: dict[str, Tensor]
    summand: dict[str, Tensor]
    kept: TrainingState | None
    diagnostics: Diagnostics | None


def make_update(
    hospital: Hospital,
    config: RunConfig,
    terms: Terms,
    request: TrainRequest,
    saved: TrainingState | None,
    streams: Streams,
) -> Update:
    """Train one round of the run under `terms`, which has been paid for.

    An adversary alters its update afterwards, or trains nothing.
    """
    with limited_threads(config.threads_per_hospital):
        make = _one_step if config.local_steps else _passes
        return make(hospital, config, terms, request, saved, streams)


def _passes(
    hospital: Hospital,
    config: RunConfig,
    terms: Terms,
    request: TrainRequest,
    saved: TrainingState | None,
    streams: Streams,
) -> Update:
    model, moments = resumed_model(config, terms.run, saved, request.encoder)
    shared = shared_of(config, model)
    received = {name: value.clone() for name, value in shared.state_dict().items()}
    behaviour, diagnostics = behaviour_of(config, hospital.identity.index), None
    if behaviour != FREE_RIDER:
        rounds = round_terms(terms, config)
        moments, diagnostics = train_round(model, hospital.train, rounds, streams, moments)
    kept = TrainingState(
        terms.run, request.server_round, model.encoder.state_dict(), model.partner.state_dict(), moments
    )
    sent = update_to_send(behaviour, received, shared.state_dict(), streams.noise)
    records = len(hospital.train)
    summand = {name: records * (sent[name].double() - old.double()) for name, old in received.items()}
    return Update(sent, summand, kept, diagnostics)


def _one_step(
    hospital: Hospital,
    config: RunConfig,
    terms: Terms,
    request: TrainRequest,
    _saved: TrainingState | None,
    streams: Streams,
) -> Update:
    model, _ = resumed_model(config, terms.run, None, request.encoder)
    names = list(shared_of(config, model).state_dict())
    behaviour, diagnostics = behaviour_of(config, hospital.identity.index), None
    nothing = {name: torch.zeros_like(value) for name, value in request.encoder.items()}
    sums = {name: value.double() for name, value in nothing.items()}
    if behaviour != FREE_RIDER:
        noised, diagnostics = one_step(model, hospital.train, round_terms(terms, config), streams)
        sums = dict(zip(names, noised, strict=True))
    expected_batch = terms.sample_rate * len(hospital.train)
    gradient = {name: (total / expected_batch).float() for name, total in sums.items()}
    sent = update_to_send(behaviour, nothing, gradient, streams.noise)
    on_grid = config.noise == JOINT
    summand = sums if on_grid else {name: total / terms.sample_rate for name, total in sums.items()}
    return Update(sent, summand, None, diagnostics)
