"""Gradients as an attacker computes them, and images found from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import REAL_DATA, real_data
from torch import Tensor

from fl_ppae.leakage.gradient_inversion import in_best_order, invert_gradient
from fl_ppae.leakage.gradients import (
    alignment,
    encoder_gradient,
    noised_encoder_gradient,
    record_gradients,
    whitened,
)
from fl_ppae.leakage.image_quality import image_quality
from fl_ppae.leakage.membership import membership_auc
from fl_ppae.models.autoencoders import build_autoencoder, encoding_shape
from fl_ppae.models.encoding import images_to_tensor
from fl_ppae.models.objectives import OBJECTIVES, LocalModel, Objective
from fl_ppae.privacy.scopes import SCOPES

BLOOD = REAL_DATA / "bloodmnist.npz"
SHAPE = (1, 12, 12)


def model_of(name: str, objective: Objective) -> LocalModel:
    autoencoder = build_autoencoder(name, 0, SHAPE, 0)
    partner = objective.partner(autoencoder, encoding_shape(name, 0, SHAPE), 3, 0)
    return LocalModel(autoencoder.encoder, partner)


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images, so that a smooth guess can be right, and labels."""
    rough = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(rough, SHAPE[1:], mode="bilinear")
    return images, torch.arange(count) % 3


@pytest.mark.parametrize("name", ["fc", "conv", "conv-image"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_record_gradients_are_each_records_own(name: str, objective: Objective):
    model, (images, labels) = model_of(name, objective), batch(5)
    rows = torch.cat([*record_gradients(model, images, labels, objective)])
    for index in range(5):
        own = encoder_gradient(model, images[index : index + 1], labels[index : index + 1], objective)
        torch.testing.assert_close(rows[index], own, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        rows.mean(0), encoder_gradient(model, images, labels, objective), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_a_noised_gradient_is_clipped_as_training_clips(objective: Objective):
    model, (images, labels) = model_of("conv", objective), batch(4)

    def noised(**changes: object) -> Tensor:
        settings = {"max_grad_norm": 1e6, "noise_std": 0.0, "scope": SCOPES["autoencoder"], **changes}
        return noised_encoder_gradient(
            model, images, labels, objective, generator=torch.Generator().manual_seed(1), **settings
        )

    plain = encoder_gradient(model, images, labels, objective)
    torch.testing.assert_close(noised(), plain, rtol=1e-3, atol=1e-6)
    joint, alone = (noised(max_grad_norm=1e-3, scope=SCOPES[scope]) for scope in ("autoencoder", "encoder"))
    assert joint.norm() < alone.norm() <= 1e-3
    spread = (noised(noise_std=0.5) - plain).std() * 4
    assert spread == pytest.approx(0.5, rel=0.05)


def test_whitening_is_the_inverse_of_the_gradients_covariance():
    generator = torch.Generator().manual_seed(0)
    population = torch.randn(20, 50, generator=generator) * torch.linspace(3, 0.1, 50) + 2
    direction = torch.randn(50, generator=generator)
    centred = (population - population.mean(0)).double()
    values = torch.linalg.eigvalsh(centred @ centred.T)
    ridge = 0.1 * values.clamp(min=0).mean()
    inverse = torch.linalg.inv(centred.T @ centred + ridge * torch.eye(50, dtype=torch.float64))
    expected = ridge * (inverse @ direction.double())
    torch.testing.assert_close(whitened(direction, population), expected.float(), rtol=1e-3, atol=1e-4)


def test_whitening_finds_members_that_a_cosine_does_not():
    generator = torch.Generator().manual_seed(0)
    common = torch.tensor([30.0] * 5 + [1.0] * 295)  # a few directions have nearly all of the variance
    gradients = torch.randn(1200, 300, generator=generator) * common
    members, others, population = gradients[:100], gradients[100:600], gradients[600:]
    update = -members.sum(0)

    def area(direction: Tensor) -> float:
        scores = (alignment(rows, direction).numpy() for rows in (members, others))
        return membership_auc(*scores).value

    assert area(update) < 0.65
    assert area(whitened(update, population)) > area(update) + 0.1


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
@pytest.mark.parametrize("size", [1, 2])
def test_images_come_back_from_a_gradient_and_not_from_a_noised_one(objective: Objective, size: int):
    model, (images, labels) = model_of("conv", objective), batch(size)
    start = torch.full_like(images, 0.5)

    def psnr(seen: Tensor) -> float:
        made = invert_gradient(model, seen, labels, objective, start, steps=200, tv_weight=1e-3)
        assert made.min() >= 0 and made.max() <= 1
        return float(image_quality(images, in_best_order(images, made)).psnr.mean())

    floor = float(image_quality(images, start).psnr.mean())
    plain = psnr(encoder_gradient(model, images, labels, objective))
    noised = noised_encoder_gradient(
        model,
        images,
        labels,
        objective,
        max_grad_norm=1e-3,
        noise_std=1e-3,
        scope=SCOPES["autoencoder"],
        generator=torch.Generator().manual_seed(0),
    )
    assert plain > floor + 5
    assert psnr(noised) < floor + 2


def test_a_batch_is_put_into_order():
    images, _ = batch(6)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(in_best_order(images, images[order]), images)


@pytest.mark.slow
def test_real_cells_come_back_from_the_gradient_of_one():
    real_data(BLOOD.name)
    with np.load(BLOOD) as data:
        images, known = (images_to_tensor(data[f"{split}_images"][:400]) for split in ("test", "val"))
    images = images[:4]
    autoencoder = build_autoencoder("conv", 0, (3, 28, 28), 0)
    model, labels = LocalModel(autoencoder.encoder, autoencoder.decoder), torch.zeros(4, dtype=torch.long)
    mean = known.mean(0, keepdim=True)
    floor = image_quality(images, mean.expand(4, -1, -1, -1)).ssim.mean()
    generator = torch.Generator().manual_seed(0)
    found = []
    for std in (None, 1e-3):
        made = []
        for row in range(4):
            one, label = images[row : row + 1], labels[:1]
            seen = encoder_gradient(model, one, label, OBJECTIVES["reconstruction"])
            if std is not None:
                seen = noised_encoder_gradient(
                    model,
                    one,
                    label,
                    OBJECTIVES["reconstruction"],
                    max_grad_norm=1e-3,
                    noise_std=std,
                    scope=SCOPES["autoencoder"],
                    generator=generator,
                )
            made.append(
                invert_gradient(
                    model, seen, label, OBJECTIVES["reconstruction"], mean, steps=300, tv_weight=0.01
                )
            )
        found.append(image_quality(images, torch.cat(made)).ssim.mean())
    assert found[0] > floor + 0.3
    assert found[1] < floor + 0.05
