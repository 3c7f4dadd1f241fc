"""The updates that a run received, kept by record-messages, and updates of simulated hospitals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_ppae.attacks.audited_run import AuditedRun, frozen
from fl_ppae.attacks.shadows import attackers_draws, terms_like
from fl_ppae.config import RunConfig
from fl_ppae.data.records import Records
from fl_ppae.hospital.rounds import LocalTraining, averaged
from fl_ppae.models.build import autoencoder_of, local_model_of, update_shapes_of
from fl_ppae.models.views import single_view
from fl_ppae.runs.arrays import read_tensors
from strategies.robust import AVERAGE, combine, too_few


@dataclass(frozen=True, eq=False)
class ReceivedRound:
    """One round as the server saw it.

    Attributes:
        number: from 1.
        start: the common encoder that was sent out.
        updates: what each hospital that trained changed, flat (P,), by name.
    """

    number: int
    start: nn.Module
    updates: dict[str, Tensor]


def received_rounds(audited: AuditedRun, most: int) -> list[ReceivedRound]:
    """Up to `most` rounds from the first, as far as every round received something."""
    rounds: list[ReceivedRound] = []
    encoder, learn = single_view(audited.initial_encoder), update_shapes_of(audited.config)
    for number in range(1, min(most, audited.config.num_server_rounds) + 1):
        files = sorted((audited.path / "received" / f"round-{number}").glob("*.safetensors"))
        if not files:
            break
        states = {file.stem: read_tensors(file) for file in files}
        updates = {name: _difference(encoder, state, learn) for name, state in states.items()}
        rounds.append(ReceivedRound(number, encoder, updates))
        following = autoencoder_of(audited.config).encoder
        following.load_state_dict(encoder.state_dict() | _combined(audited, states))
        encoder = frozen(following)
    return rounds


def _combined(audited: AuditedRun, states: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The encoder that the run's aggregation made of those received; empty if they were too few for it."""
    rule = audited.config.aggregation
    if rule == AVERAGE:
        weights = [audited.stored.config["records"][name] for name in states]
        return averaged(list(states.values()), weights)
    if too_few(rule, len(states)):
        return {}
    arrays = [{name: value.numpy() for name, value in state.items()} for state in states.values()]
    return {name: torch.from_numpy(value) for name, value in combine(rule, arrays).items()}


def simulated_updates(
    config: RunConfig, records: Records, hospital_records: int, rounds: Sequence[ReceivedRound], index: int
) -> list[Tensor]:
    """The updates (P,) that a hospital with these `records` would have sent in each of `rounds`.

    Each round starts from the encoder that was really sent out, with the hospital's own partner, which starts
    as every hospital's does. Sample rate, steps and noise are those of a hospital of `hospital_records`.
    `index` numbers the simulated hospital and seeds its randomness.
    """
    model, updates = local_model_of(config), []
    terms = terms_like(config, hospital_records, len(records))
    training = LocalTraining(model, records, terms, attackers_draws(index))
    learn = update_shapes_of(config)
    for each in rounds:
        training.train(each.number, start=each.start.state_dict())
        updates.append(_difference(each.start, model.encoder.state_dict(), learn))
    return updates


def _difference(start: nn.Module, state: dict[str, Tensor], learn: Iterable[str]) -> Tensor:
    before = start.state_dict()
    return torch.cat([(state[name] - before[name]).flatten() for name in learn])
