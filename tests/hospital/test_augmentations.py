"""A record's augmented copies together have one record's influence."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hospital.test_hostile_weights import hostile
from hospital.test_physical_batches import CLASSES, farthest, model_of, terms_of
from support import records_of

from fl_ppae.config import RunConfig
from fl_ppae.data.records import HospitalRecords
from fl_ppae.errors import UserError
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.training import TrainingTerms
from fl_ppae.models.augment import DRAWS, augmented
from fl_ppae.privacy.clipping import CLIP_MARGIN
from fl_ppae.privacy.randomness import poisson_batch, streams


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    rng = np.random.default_rng(3)
    return records_of(rng.integers(0, 256, (16, 12, 12, 3), np.uint8), rng.integers(0, CLASSES, 16))


def augmenting(objective: str, copies: int, **changes: object) -> TrainingTerms:
    terms = terms_of(objective, "autoencoder", max_grad_norm=0.05 if objective == "task" else 0.008)
    return replace(terms, augmentations=copies, any_way_up=True, **changes)


@pytest.mark.parametrize(("name", "objective"), [("fc", "task"), ("conv", "reconstruction")])
def test_a_records_gradient_is_the_mean_over_its_copies_clipped_once(
    records: HospitalRecords, name: str, objective: str
) -> None:
    terms = augmenting(objective, 3, noise_multiplier=1e-9)
    released, _ = one_step(model_of(name, objective), records, terms, streams(1, 0, 1))
    model, drawn = model_of(name, objective), streams(1, 0, 1)
    draws = torch.from_numpy(drawn.augmentation.uniform(16 * 3 * DRAWS)).view(16, 3, DRAWS)
    parameters = list(model.parameters())
    sums, norms = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters], []
    for position in poisson_batch(drawn.sampling, 16, terms.sample_rate):
        rows = np.array([position])
        shown = augmented(records.images(rows).expand(3, -1, -1, -1), draws[position], any_way_up=True)
        losses = terms.objective.loss(model(shown), shown, records.labels(rows).expand(3))
        grads = torch.autograd.grad(losses.mean(), parameters)
        norms.append(float(torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()))
        for total, grad in zip(sums, grads, strict=True):
            total.add_(grad * min(1.0, terms.max_grad_norm / norms[-1]))
    assert len(norms) > 3 and max(norms) > terms.max_grad_norm, "the control: something is clipped"
    for one, other in zip(released, sums, strict=True):
        torch.testing.assert_close(one, other, rtol=50 * CLIP_MARGIN, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "copies"), [("fc-deep", 2), ("conv", 3), pytest.param("residual", 4, marks=pytest.mark.slow)]
)
def test_under_hostile_weights_one_record_with_its_copies_moves_the_sum_by_at_most_the_clipping_norm(
    records: HospitalRecords, name: str, copies: int
) -> None:
    for number, model in enumerate(hostile(model_of(name, "task"))):
        terms = augmenting("task", copies, max_grad_norm=(1e-6, 1.0)[number % 2])
        assert farthest(model, records, terms) <= 1, number


def test_draws_follow_the_seed_and_differ_from_step_to_step(records: HospitalRecords) -> None:
    terms = augmenting("task", 2, noise_multiplier=1e-9, sample_rate=1.0)
    model = model_of("conv", "task")
    first, again, later = (
        one_step(copy.deepcopy(model), records, terms, streams(1, 0, draw))[0] for draw in (1, 1, 2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert float((first[0] - later[0]).abs().max()) > 1e-6


def test_a_head_on_codes_that_are_computed_once_takes_no_augmentation() -> None:
    keys = {"local-steps": 1, "objective": "task", "trains": "head", "augmentations": 4}
    with pytest.raises(UserError, match="encoded once, as it is; use 0"):
        RunConfig.from_flat(keys)
