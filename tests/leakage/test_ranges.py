"""Samples outside the range that a measure is defined on are an error that names the range."""

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

COUNT = 12


def drawn(*shape: int) -> Tensor:
    return torch.rand(COUNT, *shape, generator=torch.Generator().manual_seed(0))


IMAGES, ENCODINGS, LABELS = drawn(1, 8, 8), drawn(6), torch.arange(COUNT) % 3
SHARES = torch.softmax(drawn(3), 1)
SCORES = drawn().double().numpy()
HALVES = np.tile([[True], [True], [False], [False]], (1, COUNT))
FOUR = np.tile(SCORES, (4, 1))
SQUARE = ENCODINGS @ ENCODINGS.T
DECODER = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.Unflatten(1, (1, 8, 8)))
BYTES = (255 * IMAGES).byte()


def pairs(images: Tensor = IMAGES, encodings: Tensor = ENCODINGS, labels: Tensor = LABELS) -> inversion.Pairs:
    return inversion.Pairs(images, encodings, labels)


def inverted(start: Tensor) -> Tensor:
    autoencoder = build_autoencoder("fc", 4, (1, 8, 8), 0)
    model = LocalModel(autoencoder.encoder, autoencoder.decoder)
    objective = OBJECTIVES["reconstruction"]
    seen = gradients.encoder_gradient(model, IMAGES[:2], LABELS[:2], objective).detach()
    return gradient_inversion.invert_gradient(
        model, seen, LABELS[:2], objective, start, steps=1, tv_weight=0.1
    )


def probed(encodings: Tensor) -> float:
    pixels = BYTES.permute(0, 2, 3, 1).numpy()
    return reconstruction.probe_reconstruction_loss(encodings.numpy(), pixels, DECODER, 0, 1, steps=1)


IMAGE_MEASURES: dict[str, Callable[[Tensor], Any]] = {
    "image quality, originals": lambda x: image_quality.image_quality(x, IMAGES),
    "image quality, reconstructed": lambda x: image_quality.image_quality(IMAGES, x),
    "similarity": lambda x: similarity.similarity(x, ENCODINGS),
    "pairs": pairs,
    "mean image": lambda x: image_quality.mean_images(x, 3),
    "class-mean image": lambda x: image_quality.class_mean_images(x, LABELS, LABELS),
    "matched order": lambda x: gradient_inversion.in_best_order(IMAGES, x),
    "start of a gradient inversion": lambda x: inverted(x[:2]),
}
BAD_IMAGES: dict[str, tuple[Tensor, str]] = {
    "of 0 to 255": (255 * IMAGES, r"to 2\d\d.*outside \[0, 1\]"),
    "of -1 to 1": (2 * IMAGES - 1, r"from -.*outside \[0, 1\]"),
    "in bytes": (BYTES, "uint8: pixels are floats"),
    "without a channel": (IMAGES[:, 0], r"not \(N, C, H, W\)|against"),
    "none": (IMAGES[:0], r"not \(N, C, H, W\)|against|two or more"),
}


@pytest.mark.parametrize("measure", IMAGE_MEASURES)
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_images_outside_their_range_are_an_error_that_names_it(measure: str, kind: str) -> None:
    call, (bad, named) = IMAGE_MEASURES[measure], BAD_IMAGES[kind]
    call(IMAGES)  # the control
    call(IMAGES + 1e-7)  # rounding of float32
    with pytest.raises(ValueError, match=named):
        call(bad)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (8, 6), (1, 1)])
def test_images_smaller_than_ssims_window_are_an_error_that_names_its_size(height: int, width: int) -> None:
    small = drawn(3, height, width)
    with pytest.raises(ValueError, match=f"{height}x{width} pixels: SSIM's window needs 7x7"):
        image_quality.image_quality(small, small)
    assert image_quality.image_quality(drawn(3, 7, 7), drawn(3, 7, 7)).ssim == pytest.approx(1)


REFUSED: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "a pair without an encoding": (pairs, lambda: pairs(encodings=ENCODINGS[1:]), "as many of each"),
    "a pair without a label": (pairs, lambda: pairs(labels=LABELS[1:]), "as many of each"),
    "an image without a label": (
        lambda: image_quality.class_mean_images(IMAGES, LABELS, LABELS),
        lambda: image_quality.class_mean_images(IMAGES, LABELS[1:], LABELS),
        "12 known, 11 known_labels",
    ),
    "distance correlation of three": (
        lambda: dependence.distance_correlation(SQUARE[:4, :4], SQUARE[:4, :4]),
        lambda: dependence.distance_correlation(SQUARE[:3, :3], SQUARE[:3, :3]),
        "needs 4 or more",
    ),
    "linear CKA of one": (
        lambda: dependence.linear_cka(SQUARE[:2, :2], SQUARE[:2, :2]),
        lambda: dependence.linear_cka(SQUARE[:1, :1], SQUARE[:1, :1]),
        "needs 2 or more",
    ),
    "unequal samples": (
        lambda: dependence.linear_cka(SQUARE, SQUARE),
        lambda: dependence.linear_cka(SQUARE[:4, :4], SQUARE[:1, :1]),  # it would broadcast
        "4 left, 1 right",
    ),
    "four pairs for a linear attacker": (
        lambda: linear_inversion.fit_linear(ENCODINGS[:5], IMAGES[:5]),
        lambda: linear_inversion.fit_linear(ENCODINGS[:4], IMAGES[:4]),
        "needs 5 or more",
    ),
    "nine queries": (
        lambda: extraction.extract(ENCODINGS[:10], SHARES[:10]),
        lambda: extraction.extract(ENCODINGS[:9], SHARES[:9]),
        "needs 10 or more",
    ),
    "answers that are logits": (
        lambda: extraction.extract(ENCODINGS, SHARES),
        lambda: extraction.extract(ENCODINGS, 9 * SHARES - 4),
        "answers are not probabilities",
    ),
    "one attribute": (
        lambda: attribute.infer_attribute(ENCODINGS, LABELS % 2, ENCODINGS),
        lambda: attribute.infer_attribute(ENCODINGS, 0 * LABELS, ENCODINGS),
        "two values or more, 2 times each, not 12 times",
    ),
    "an attribute seen once": (
        lambda: attribute.infer_attribute(ENCODINGS, LABELS, ENCODINGS),
        lambda: attribute.infer_attribute(ENCODINGS, torch.arange(COUNT) > 0, ENCODINGS),
        "not 1, 11 times",
    ),
    "class shares that are counts": (
        lambda: class_mix.total_variation(SHARES.numpy(), SHARES.numpy()),
        lambda: class_mix.total_variation(10 * SHARES.numpy(), SHARES.numpy()),
        "one are not probabilities",
    ),
    "a mix short": (
        lambda: class_mix.fit_and_predict(
            ENCODINGS.numpy(), SHARES.numpy(), SCORES[None, :6], np.ones(3) / 3
        ),
        lambda: class_mix.fit_and_predict(
            ENCODINGS.numpy(), SHARES[1:].numpy(), SCORES[None, :6], np.ones(3) / 3
        ),
        "12 known, 11 mixes",
    ),
    "an AUC of no members": (
        lambda: membership.membership_auc(SCORES, SCORES),
        lambda: membership.membership_auc(SCORES[:0], SCORES),
        "0 members",
    ),
    "a ROC of no others": (
        lambda: membership.roc(SCORES, SCORES),
        lambda: membership.roc(SCORES, SCORES[:0]),
        "0 others",
    ),
    "a rate of 1": (
        lambda: membership.true_positive_rate(SCORES, SCORES, 0.5),
        lambda: membership.true_positive_rate(SCORES, SCORES, 1.0),
        "above 0 and below 1",
    ),
    "a rate on no members": (
        lambda: membership.true_positive_rate(SCORES, SCORES, 0.5),
        lambda: membership.true_positive_rate(SCORES[:0], SCORES, 0.5),
        "0 members",
    ),
    "shadows of other records": (
        lambda: membership.relative_likelihood(SCORES, FOUR),
        lambda: membership.relative_likelihood(SCORES, FOUR[:, :1]),  # it would broadcast
        "of shadows",
    ),
    "no scale": (
        lambda: membership.relative_likelihood(SCORES, FOUR, 1.0),
        lambda: membership.relative_likelihood(SCORES, FOUR, 0.0),
        "above 0",
    ),
    "two shadows for LiRA": (
        lambda: membership.likelihood_ratio(SCORES, FOUR, HALVES, nats=True),
        lambda: membership.likelihood_ratio(SCORES, FOUR[1:3], HALVES[1:3], nats=True),
        "4 shadows",
    ),
    "a record in every shadow": (
        lambda: membership.likelihood_ratio(SCORES, FOUR, HALVES, nats=True),
        lambda: membership.likelihood_ratio(SCORES, FOUR, HALVES | True, nats=True),
        "half of the shadow models",
    ),
    "a probe of one": (lambda: probed(ENCODINGS), lambda: probed(ENCODINGS[:1]), "as many of each"),
    "unpaired ranks": (
        lambda: intervals.rank_correlation(SCORES, SCORES),
        lambda: intervals.rank_correlation(SCORES, SCORES[1:]),
        "12 left, 11 right",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_too_few_or_unpaired_or_misplaced_samples_are_an_error(what: str) -> None:
    right, wrong, named = REFUSED[what]
    right()  # the control
    with pytest.raises(ValueError, match=named):
        wrong()
