"""A round of one step: what leaves is one noised sum, and the server's step on it is the hospital's own."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support import records_of

from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.rounds import LocalTraining
from fl_ppae.hospital.training import TrainingTerms
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.clipping import CLIP_MARGIN
from fl_ppae.privacy.noise import grid_step
from fl_ppae.privacy.randomness import poisson_batch, streams
from fl_ppae.privacy.scopes import SCOPES
from strategies.server_optimiser import ServerAdam

SCOPED = [("frozen-decoder", "reconstruction"), ("frozen-decoder", "task"), ("autoencoder", "task")]


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    images = rng.integers(0, 200, (4, 28, 28, 1))[labels] + rng.integers(0, 55, (40, 28, 28, 1))
    return records_of(images.astype(np.uint8), labels)


def model_of(objective: str) -> LocalModel:
    autoencoder = build_autoencoder("fc", 8, (1, 28, 28), seed=1)
    return LocalModel(autoencoder.encoder, OBJECTIVES[objective].partner(autoencoder, (8,), 4, 1))


def terms_of(scope: str, objective: str, **changes: Any) -> TrainingTerms:
    values = {"noise_multiplier": 1.0, "max_grad_norm": 0.5, "sample_rate": 0.25, "steps": 1}
    return TrainingTerms(SCOPES[scope], OBJECTIVES[objective], **{**values, "learning_rate": 1e-2, **changes})


def clipped_by_hand(model: LocalModel, records: HospitalRecords, terms: TrainingTerms) -> list[torch.Tensor]:
    """The clipped sum over the batch that `streams(1, 0, 1)` draws, one record at a time, by autograd."""
    noised = list(model.part(terms.scope.noised).parameters())
    sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in noised]
    for position in poisson_batch(streams(1, 0, 1).sampling, len(records), terms.sample_rate):
        rows = np.array([position])
        images, labels = records.images(rows), records.labels(rows)
        grads = torch.autograd.grad(terms.objective.loss(model(images), images, labels).sum(), noised)
        norm = float(torch.stack([grad.square().sum() for grad in grads]).sum().sqrt())
        for total, grad in zip(sums, grads, strict=True):
            total.add_(grad * min(1.0, terms.max_grad_norm / norm))
    return sums


@pytest.mark.parametrize(("scope", "objective"), SCOPED)
def test_what_leaves_is_the_clipped_sum_of_one_batch_and_the_model_stays(
    records: HospitalRecords, scope: str, objective: str
) -> None:
    model = model_of(objective)
    before = copy.deepcopy(model.state_dict())
    terms = terms_of(scope, objective, noise_multiplier=1e-9)
    released, _ = one_step(model, records, terms, streams(1, 0, 1))
    expected = clipped_by_hand(model_of(objective), records, terms)
    for one, other in zip(released, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=5 * CLIP_MARGIN, atol=1e-5)
    assert max(float(total.abs().max()) for total in expected) > 1e-3, "the control"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_noise_has_the_planned_size_and_the_sum_is_on_the_public_grid(records: HospitalRecords) -> None:
    terms = terms_of("frozen-decoder", "reconstruction", noise_multiplier=1.7)
    released, _ = one_step(model_of("reconstruction"), records, terms, streams(1, 0, 1))
    clean = clipped_by_hand(model_of("reconstruction"), records, terms)
    noise = torch.cat([(one - other).flatten() for one, other in zip(released, clean, strict=True)])
    assert float(noise.std()) == pytest.approx(1.7 * 0.5, rel=4 / len(noise) ** 0.5)
    cells = torch.cat([total.flatten() for total in released]) / grid_step(1.7 * 0.5)
    assert torch.equal(cells, cells.round())


@pytest.mark.parametrize(("scope", "objective"), SCOPED)
def test_rounds_of_one_step_are_one_hospitals_own_training_bit_for_bit(
    records: HospitalRecords, scope: str, objective: str
) -> None:
    """Alone, a hospital whose server steps is trained as one that steps itself."""
    terms = terms_of(scope, objective)
    alone = LocalTraining(model_of(objective), records, terms, lambda draw: streams(1, 0, draw))
    served, server = model_of(objective), ServerAdam(terms.learning_rate)
    for server_round in (1, 2, 3):
        alone.train(server_round)
        released, _ = one_step(served, records, terms, streams(1, 0, server_round))
        parameters = dict(served.part(terms.scope.noised).named_parameters())
        weights = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
        expected_batch = terms.sample_rate * len(records)
        gradient = {
            name: (total / expected_batch).float().numpy()
            for name, total in zip(parameters, released, strict=True)
        }
        for name, value in server.step(weights, gradient).items():
            parameters[name].data.copy_(torch.from_numpy(value))
    trained = alone.model.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in served.state_dict().items())
    forgetful = ServerAdam(terms.learning_rate).step(weights, gradient)
    moved = {name: server.step(weights, gradient)[name] for name in weights}
    assert any(not np.array_equal(moved[name], forgetful[name]) for name in weights), "moments last"


def test_diagnostics_are_those_of_the_batch(records: HospitalRecords) -> None:
    terms = terms_of("autoencoder", "task", sample_rate=1.0)
    _, diagnostics = one_step(model_of("task"), records, terms, streams(1, 0, 1))
    model = model_of("task")
    images, labels = records.images(slice(None)), records.labels(slice(None))
    expected = OBJECTIVES["task"].loss(model(images), images, labels).mean().item()
    assert diagnostics.loss == pytest.approx(expected, rel=1e-4)
    assert 0 <= diagnostics.clipped_fraction <= 1 and diagnostics.signal_to_noise > 0
