"""Every objective is what its entry in the table says."""

from __future__ import annotations

import pytest
import torch

from fl_ppae.config import RunConfig
from fl_ppae.models.build import local_model_of, shared_of, update_shapes_of
from fl_ppae.models.objectives import OBJECTIVES, label_losses
from fl_ppae.privacy.scopes import SCOPES


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


def test_the_probabilities_of_all_label_sets_are_those_of_independent_labels() -> None:
    scores = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sets = torch.cartesian_prod(*(torch.arange(2),) * 4)
    found = label_losses(scores.expand(16, 4), sets).neg().exp()
    each = torch.where(sets == 1, scores.sigmoid(), 1 - scores.sigmoid())
    torch.testing.assert_close(found, each.prod(1))
    assert float(found.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "scope", "local_steps"),
    [
        *((name, scope, 0) for name in OBJECTIVES for scope in SCOPES),
        *((name, "frozen-decoder", 1) for name in OBJECTIVES),
    ],
)
def test_only_the_encoder_may_leave(name: str, scope: str, local_steps: int) -> None:
    config = RunConfig.from_flat({"objective": name, "dp-scope": scope, "local-steps": local_steps})
    encoder = local_model_of(config).encoder.state_dict()
    assert update_shapes_of(config) == {key: tuple(value.shape) for key, value in encoder.items()}


def test_a_head_leaves_with_the_encoder_where_a_round_is_one_step_that_noises_both() -> None:
    config = RunConfig.from_flat({"objective": "task", "dp-scope": "autoencoder", "local-steps": 1})
    state = local_model_of(config).state_dict()
    assert update_shapes_of(config) == {key: tuple(value.shape) for key, value in state.items()}
    assert any(key.startswith("partner.") for key in state)


@pytest.mark.parametrize("scope", list(SCOPES))
def test_a_decoder_never_leaves(scope: str) -> None:
    """Not even under keys that `config` refuses."""
    config = RunConfig.from_flat({}).model_copy(update={"local_steps": 1, "dp_scope": scope})
    model = local_model_of(config)
    assert shared_of(config, model) is model.encoder
