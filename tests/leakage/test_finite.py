"""Numbers that are not finite are an error in every measure of leakage, never a value of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fl_ppae.leakage import (
    attribute,
    class_mix,
    dependence,
    extraction,
    gradient_inversion,
    gradients,
    image_quality,
    intervals,
    inversion,
    linear_inversion,
    membership,
    reconstruction,
    similarity,
)
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel

COUNT = 44


def drawn(*shape: int) -> Tensor:
    return torch.rand(COUNT, *shape, generator=torch.Generator().manual_seed(0))


IMAGES, ENCODINGS, SCORES = drawn(1, 8, 8), drawn(6), drawn().double().numpy()


def spoiled(sample: Any, value: float) -> Any:
    """A copy of `sample` with one number replaced."""
    if isinstance(sample, Tensor):
        copy = sample.clone()
        copy.view(-1)[-1] = value
        return copy
    copied = np.array(sample, np.float64)
    copied.flat[-1] = value
    return copied


def pairs(encodings: Tensor) -> inversion.Pairs:
    return inversion.Pairs(IMAGES, encodings, torch.arange(COUNT) % 3)


def inverted_gradient(seen: Tensor) -> Tensor:
    autoencoder = build_autoencoder("fc", 4, (1, 8, 8), 0)
    model = LocalModel(autoencoder.encoder, autoencoder.decoder)
    gradient = gradients.encoder_gradient(model, IMAGES[:1], torch.zeros(1), OBJECTIVES["reconstruction"])
    return gradient_inversion.invert_gradient(
        model,
        gradient.detach() * seen.mean(),
        torch.zeros(1),
        OBJECTIVES["reconstruction"],
        IMAGES[1:2],
        steps=2,
        tv_weight=0.1,
    )


def decoded_loss(encodings: Tensor) -> float:
    decoder = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.Unflatten(1, (1, 8, 8)))
    pixels = (255 * IMAGES).byte().permute(0, 2, 3, 1).numpy()
    return reconstruction.probe_reconstruction_loss(encodings.numpy(), pixels, decoder, 0, 1, steps=2)


OTHERS = 1 - SCORES
HALVES = np.arange(COUNT) % 2
ANSWERS = torch.softmax(drawn(3), 1)
FITTED = linear_inversion.fit_linear(ENCODINGS, IMAGES)
MEASURES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "similarity": (lambda x: similarity.similarity(IMAGES, x), ENCODINGS),
    "similarity of images": (lambda x: similarity.similarity(x, ENCODINGS), IMAGES),
    "distances": (dependence.distances, ENCODINGS),
    "products": (dependence.products, ENCODINGS),
    "distance correlation": (lambda x: dependence.distance_correlation(x @ x.T, x @ x.T), ENCODINGS),
    "linear CKA": (lambda x: dependence.linear_cka(x @ x.T, x @ x.T), ENCODINGS),
    "auc": (lambda x: membership.membership_auc(x, OTHERS), SCORES),
    "auc, others": (lambda x: membership.membership_auc(OTHERS, x), SCORES),
    "tpr": (lambda x: membership.true_positive_rate(x, OTHERS, 0.1), SCORES),
    "tpr, others": (lambda x: membership.true_positive_rate(OTHERS, x, 0.1), SCORES),
    "roc": (lambda x: membership.roc(x, OTHERS), SCORES),
    "likelihood": (lambda x: membership.relative_likelihood(x, np.stack([OTHERS, OTHERS])), SCORES),
    "shadows": (lambda x: membership.relative_likelihood(OTHERS, np.stack([x, OTHERS])), SCORES),
    "image quality": (lambda x: image_quality.image_quality(IMAGES, x), IMAGES),
    "pairs": (pairs, ENCODINGS),
    "linear attacker": (lambda x: linear_inversion.fit_linear(x, IMAGES), ENCODINGS),
    "linear reconstruction": (FITTED.decode, ENCODINGS),
    "extraction": (lambda x: extraction.extract(x, ANSWERS), ENCODINGS),
    "extraction, answers": (lambda x: extraction.extract(ENCODINGS, x), ANSWERS),
    "attribute": (
        lambda x: attribute.infer_attribute(x, np.arange(COUNT) % 2, OTHERS[:, None]),
        SCORES[:, None],
    ),
    "attribute, seen": (
        lambda x: attribute.infer_attribute(OTHERS[:, None], np.arange(COUNT) % 2, x),
        SCORES[:, None],
    ),
    "class mix": (
        lambda x: class_mix.fit_and_predict(x, ANSWERS.numpy(), x[:2], np.ones(3) / 3),
        ENCODINGS.numpy(),
    ),
    "class mix, seen": (
        lambda x: class_mix.fit_and_predict(ENCODINGS.numpy(), ANSWERS.numpy(), x, np.ones(3) / 3),
        ENCODINGS.numpy(),
    ),
    "gradient": (inverted_gradient, ENCODINGS),
    "reconstruction": (decoded_loss, ENCODINGS),
    "mean": (intervals.t_mean, SCORES),
    "paired difference": (lambda x: intervals.paired_difference(x, OTHERS), SCORES),
    "rank correlation": (lambda x: intervals.rank_correlation(x, OTHERS), SCORES),
    "alignment": (lambda x: gradients.alignment(x, ENCODINGS[0]), ENCODINGS),
    "alignment, update": (lambda x: gradients.alignment(ENCODINGS, x), ENCODINGS[0]),
    "whitened": (lambda x: gradients.whitened(ENCODINGS[0], x), ENCODINGS),
    "total variation": (lambda x: class_mix.total_variation(x, ANSWERS.numpy()), ANSWERS.numpy()),
    "mean image": (lambda x: image_quality.mean_images(x, 2), IMAGES),
    "matched order": (lambda x: gradient_inversion.in_best_order(IMAGES, x), IMAGES),
    "jackknife": (lambda x: intervals.jackknife(lambda rows: float(x[rows].mean()), COUNT), SCORES),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_a_number_that_is_not_finite_is_an_error_and_no_measurement(measure: str) -> None:
    call, sample = MEASURES[measure]
    call(sample)  # the control: finite numbers are measured
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="nothing can be measured"):
            call(spoiled(sample, value))


def test_an_inversion_that_diverges_loses_to_the_one_it_started_from() -> None:
    known = pairs(ENCODINGS)
    start = inversion.Inverter("linear", FITTED.decode, 0.0)
    weights = torch.rand(64, 6, generator=torch.Generator().manual_seed(1))

    def diverging(images: Tensor) -> Tensor:
        return (images.flatten(1) @ weights) * torch.nan

    found = inversion.white_box_inverter(known, diverging, start, steps=4)
    assert torch.equal(found.decode(ENCODINGS), start.decode(ENCODINGS))
