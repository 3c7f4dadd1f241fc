"""Training over several rounds is `train_round` repeated, and averaging weighs by records."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch

from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital.rounds import LocalTraining, averaged, train_together
from fl_ppae.hospital.training import TrainingTerms, train_round
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES

TERMS = TrainingTerms(SCOPES["autoencoder"], OBJECTIVES["reconstruction"], 0.5, 1e-2, 0.5, 2, 1e-2)


def model_of() -> LocalModel:
    autoencoder = build_autoencoder("fc", 8, (1, 28, 28), seed=1)
    return LocalModel(autoencoder.encoder, autoencoder.decoder)


def records_of(count: int) -> HospitalRecords:
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28, 1), np.uint8)
    return HospitalRecords(Split(images, np.zeros(count, np.int64)), np.arange(count))


def training_of(records: HospitalRecords, index: int) -> LocalTraining:
    return LocalTraining(model_of(), records, TERMS, partial(streams, 1, index))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_rounds_alone_carry_the_optimisers_moments_and_draw_from_their_own_streams() -> None:
    training, expected, records = training_of(records_of(20), 3), model_of(), records_of(20)
    seen: list[int] = []
    training.train_rounds(3, seen.append)
    moments = None
    for server_round in (1, 2, 3):
        moments, _ = train_round(expected, records, TERMS, streams(1, 3, server_round), moments)
    assert seen == [1, 2, 3]
    assert same(training.model, expected)


def test_a_round_can_start_from_another_encoder_and_keeps_its_own_partner() -> None:
    training, records = training_of(records_of(20), 0), records_of(20)
    training.train(1)
    start, partner = model_of().encoder, copy.deepcopy(training.model.partner)
    expected = LocalModel(copy.deepcopy(start), partner)
    moments, _ = train_round(model_of(), records, TERMS, streams(1, 0, 1))
    train_round(expected, records, TERMS, streams(1, 0, 2), moments)
    training.train(2, start.state_dict())
    assert same(training.model, expected)


def test_training_together_is_the_mean_by_records_of_what_each_would_send() -> None:
    sizes, encoder = (10, 30), model_of().encoder
    alone = [training_of(records_of(size), index) for index, size in enumerate(sizes)]
    for each in alone:
        each.train(1)
    together = [training_of(records_of(size), index) for index, size in enumerate(sizes)]
    train_together(together, encoder, rounds=1)
    for name, value in encoder.state_dict().items():
        small, large = (each.model.encoder.state_dict()[name] for each in alone)
        torch.testing.assert_close(value, 0.25 * small + 0.75 * large)


def test_the_mean_of_encoders_is_weighted() -> None:
    found = averaged([{"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([5.0, 1.0])}], [3, 1])
    assert found["w"].tolist() == [2.0, 4.0]
