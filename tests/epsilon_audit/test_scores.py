"""Scores of canaries: they watch without touching, and find the coins where nothing hides them."""

from typing import Any

import numpy as np
import pytest
import torch
from epsilon_audit.canary_runs import Small, canaries, hospital, terms_of
from torch import Tensor

from fl_ppae.epsilon_audit.canaries import AuditedRecords
from fl_ppae.epsilon_audit.scores import CanaryScores
from fl_ppae.hospital.training import train_round
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.clipping import per_sample_norms
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES


@pytest.mark.parametrize("scope", list(SCOPES))
def test_watching_changes_no_bit_of_the_training(scope: str, small: Small) -> None:
    def trained(watched: bool) -> dict[str, Tensor]:
        model, terms = local_model_of(small()), terms_of(scope)
        watch = CanaryScores(model, hospital(), canaries(), terms) if watched else None
        train_round(model, hospital(), terms, streams(1, 0, 1), observe=watch)
        return model.state_dict()

    for one, other in zip(trained(True).values(), trained(False).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scope", ["encoder", "frozen-decoder", "autoencoder"])
def test_what_is_observed_is_what_the_step_is_made_of(
    scope: str, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = torch.optim.Adam.step, []

    def spy(self: torch.optim.Adam, closure: Any = None) -> Any:
        taken.append([parameter.grad.clone() for parameter in self.param_groups[0]["params"]])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    seen: list[list[Tensor]] = []
    model, terms = local_model_of(small()), terms_of(scope, steps=1)
    train_round(model, hospital(), terms, streams(1, 0, 1), observe=lambda _, sums: seen.append(sums))
    for total, gradient in zip(seen[0], taken[0], strict=True):
        assert torch.equal((total / (0.3 * 40)).to(gradient.dtype), gradient)


def test_without_noise_and_sampling_scores_are_the_coins(small: Small) -> None:
    """Every slot in every batch: what is known is subtracted, and the regression has one exact answer."""
    coins = np.random.default_rng(3).random(20) < 0.5
    own, drawn = hospital(400), canaries()
    terms = terms_of("autoencoder", noise_multiplier=1e-6, sample_rate=1.0)
    model = local_model_of(small())
    watch = CanaryScores(model, own, drawn, terms)
    train_round(model, AuditedRecords(own, drawn, coins), terms, streams(1, 0, 1), observe=watch)
    np.testing.assert_allclose(watch.scores(), coins - 0.5, atol=0.02)


def test_canaries_are_clipped_to_the_full_norm(small: Small) -> None:
    """A canary whose gradient is shorter than the bound would test less than the guarantee."""
    config = small()
    model, terms = local_model_of(config), terms_of("autoencoder", max_grad_norm=config.max_grad_norm)
    watch = CanaryScores(model, hospital(), canaries(), terms)
    train_round(model, hospital(), terms, streams(1, 0, 1), observe=watch)
    norms = per_sample_norms([watch._gradients[:20]])
    torch.testing.assert_close(norms.float(), torch.full((20,), config.max_grad_norm))
