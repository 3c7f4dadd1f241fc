"""Attackers find the same whatever the size of encodings and gradients: float32 must not hide a leak."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fl_ppae.leakage.extraction import extract
from fl_ppae.leakage.gradient_inversion import invert_gradient
from fl_ppae.leakage.gradients import alignment, encoder_gradient, whitened
from fl_ppae.leakage.image_quality import image_quality, mean_images
from fl_ppae.leakage.inversion import Inverter, Pairs, fit_inverters, white_box_inverter
from fl_ppae.leakage.membership import membership_auc, with_shadows
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel

SCALES = [1e-20, 1e-10, 1.0, 1e10]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(count: int) -> Tensor:
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=(8, 8), mode="bilinear")


@pytest.mark.parametrize("scale", SCALES)
def test_alignment_and_whitening_see_gradients_of_any_size(scale: float) -> None:
    gradients, update, population = drawn(20, 50), drawn(50, seed=1), drawn(30, 50, seed=2)
    found = alignment(scale * gradients, scale * update)
    torch.testing.assert_close(found, alignment(gradients, update))
    torch.testing.assert_close(found, -torch.cosine_similarity(gradients, update[None]))
    clean = whitened(update, population)
    torch.testing.assert_close(
        whitened(scale * update, scale * population) / scale, clean, rtol=1e-3, atol=1e-4
    )
    assert not alignment(0 * gradients, update).any()


@pytest.mark.parametrize("scale", SCALES)
def test_a_gradient_of_any_size_is_inverted(scale: float) -> None:
    autoencoder = build_autoencoder("fc", 16, (1, 8, 8), 0)
    model, objective = LocalModel(autoencoder.encoder, autoencoder.decoder), OBJECTIVES["reconstruction"]
    shown, labels = images(1), torch.zeros(1, dtype=torch.int64)
    seen = encoder_gradient(model, shown, labels, objective).detach()
    start = torch.full((1, 1, 8, 8), 0.5)
    found = invert_gradient(model, scale * seen, labels, objective, start, steps=60, tv_weight=1e-3)
    assert image_quality(shown, found).psnr.mean() > image_quality(shown, start).psnr.mean() + 3
    flat = invert_gradient(model, 0 * seen, labels, objective, start, steps=60, tv_weight=1e-3)
    assert image_quality(shown, flat).psnr.mean() < image_quality(shown, start).psnr.mean() + 1  # the control


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e10])
def test_encodings_of_any_size_are_inverted(scale: float) -> None:
    x, basis = images(120), torch.linalg.qr(drawn(64, 64))[0]

    def through(shown: Tensor) -> Tensor:
        return scale * (shown.flatten(1) @ basis)

    known, seen = Pairs(x[:90], through(x[:90]), torch.arange(90) % 3), through(x[90:])
    floor = image_quality(x[90:], mean_images(x[:90], 30)).ssim.mean()
    best = fit_inverters(known, steps=2)[0]
    assert image_quality(x[90:], best.decode(seen)).ssim.mean() > floor + 0.3
    blind = Inverter("mean", lambda z: mean_images(x[:90], len(z)), image_quality(x[:2], x[:2]))
    gradient = white_box_inverter(known, through, blind, steps=60)
    assert image_quality(x[90:], gradient.decode(seen)).ssim.mean() > floor + 0.1


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_a_linear_classifier_is_copied_however_confident_its_answers_are(scale: float) -> None:
    """Nearly all answers are 0 or 1; the few digits left of the others are enough."""
    encodings, weights = drawn(400, 12), torch.cat([drawn(12, 4, seed=1), torch.zeros(12, 1)], 1)
    scores = encodings @ weights + torch.tensor(
        [0.0, 0.0, 0.0, 0.0, -1e4 / scale]
    )  # one class is never answered
    answers = (scale * scores).double().softmax(1)
    agreed = extract(encodings[:100], answers[:100])(encodings[100:]) == answers[100:].argmax(1)
    assert agreed.float().mean() > (0.97 if scale < 50 else 0.9)


@pytest.mark.parametrize("confidence", [0.0, 20.0, 45.0, 300.0])
def test_members_are_found_however_small_all_losses_are(confidence: float) -> None:
    """Losses of exp(-45) and less are 0 in float64 to whoever subtracts logarithms."""
    generator = torch.Generator().manual_seed(0)
    inside = torch.arange(8)[:, None].bitwise_and(1).bool() ^ (torch.arange(200) % 2).bool()
    hardness = torch.rand(200, generator=generator).double()

    def losses(trained: Tensor, noise: Tensor) -> Tensor:
        return torch.exp(-confidence + hardness - 0.7 * trained.double() + 0.3 * noise)

    member = torch.arange(200) % 3 == 0
    own = losses(member, torch.randn(200, generator=generator)).numpy()
    shadows = losses(inside, torch.randn(8, 200, generator=generator)).numpy()
    for scores in with_shadows(own, shadows, inside.numpy(), nats=True).values():
        assert len(set(scores.tolist())) > 190  # ties are never order
        assert membership_auc(scores[member.numpy()], scores[~member.numpy()]).low > 0.55
