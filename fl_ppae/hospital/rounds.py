"""Local training over several rounds in one process, alone or averaged with others.

Audits, studies and benchmarks use it; in a run, each message asks a hospital for one `train_round`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fl_ppae.data.records import Records
from fl_ppae.hospital.training import Moments, TrainingTerms, train_round
from fl_ppae.models.objectives import LocalModel
from fl_ppae.privacy.randomness import Streams


class LocalTraining:
    """One hospital's training: Adam's moments last from round to round.

    Attributes:
        model: trained in place.
        records: the training data.
    """

    def __init__(
        self,
        model: LocalModel,
        records: Records,
        terms: TrainingTerms,
        draws: Callable[[int], Streams],
    ) -> None:
        """`draws` returns the random streams of a round."""
        self.model, self.records = model, records
        self._terms, self._draws = terms, draws
        self._moments: Moments | None = None

    def train(self, server_round: int, start: Mapping[str, Tensor] | None = None) -> None:
        """Train one round, starting from the encoder `start` if given."""
        if start is not None:
            self.model.encoder.load_state_dict(start)
        self._moments, _ = train_round(
            self.model, self.records, self._terms, self._draws(server_round), self._moments
        )

    def train_rounds(self, rounds: int, after_round: Callable[[int], None] = lambda _: None) -> None:
        """Train rounds 1 to `rounds` alone, calling `after_round` with the number of each."""
        for server_round in range(1, rounds + 1):
            self.train(server_round)
            after_round(server_round)


def train_together(hospitals: Sequence[LocalTraining], encoder: nn.Module, rounds: int) -> None:
    """Train the common `encoder` in place by federated averaging, weighted by numbers of records."""
    weights = [len(hospital.records) for hospital in hospitals]
    for server_round in range(1, rounds + 1):
        for hospital in hospitals:
            hospital.train(server_round, encoder.state_dict())
        encoder.load_state_dict(
            averaged([hospital.model.encoder.state_dict() for hospital in hospitals], weights)
        )


def averaged(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of encoders, as in federated averaging."""
    total, mean = sum(weights), {name: torch.zeros_like(value) for name, value in states[0].items()}
    for state, weight in zip(states, weights, strict=True):
        for name, value in state.items():
            mean[name] += value * (weight / total)
    return mean
