"""Every objective is what its entry in the table says."""

from __future__ import annotations

import pytest
import torch

from fl_ppae.config import RunConfig
from fl_ppae.models.build import local_model_of, update_shapes_of
from fl_ppae.models.objectives import OBJECTIVES


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_loss_depends_on_labels_only_if_its_objective_learns_them(name: str) -> None:
    model = local_model_of(RunConfig.from_flat({"objective": name}))
    images = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    outputs, objective = model(images), OBJECTIVES[name]
    losses = [objective.loss(outputs, images, torch.full((3,), label)) for label in (0, 1)]
    assert all(each.shape == (3,) and (each > 0).all() for each in losses)
    assert torch.equal(*losses) != objective.learns_labels


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_loss_in_nats_is_a_probability_of_the_label(name: str) -> None:
    model = local_model_of(RunConfig.from_flat({"objective": name}))
    images = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    if OBJECTIVES[name].in_nats:
        losses = [OBJECTIVES[name].loss(model(images), images, torch.tensor([label])) for label in range(9)]
        assert float(torch.cat(losses).neg().exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_only_the_encoder_may_leave(name: str) -> None:
    config = RunConfig.from_flat({"objective": name})
    encoder = local_model_of(config).encoder.state_dict()
    assert update_shapes_of(config) == {key: tuple(value.shape) for key, value in encoder.items()}
