"""Measures an encoder, or encodings, on data that the server may see."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppae.adversary import BACKDOOR, stamp, success_rate
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.registry import spec_of
from fl_ppae.hardware import device_of, server_threads
from fl_ppae.leakage.reconstruction import probe_reconstruction_loss
from fl_ppae.leakage.similarity import similarity
from fl_ppae.models.build import autoencoder_of, public_seed
from fl_ppae.models.encoding import Images, encode, image_batches, images_at
from fl_ppae.models.views import viewed
from fl_ppae.protection import COMMON_HEAD
from fl_ppae.server.classification import FittedClassifier, fit_and_score, score_head
from fl_ppae.server.metrics import ClassifierScore
from fl_ppae.steps import step

LEAKAGE_IMAGES = 1000  # fixed, because retrieval gets harder with every further image
_LEAKAGE_SEED = 27_182_818  # of their choice
_LARGEST_PIXELS, _AVERAGED_PIXELS = 32, 28  # a side, of raw pixels that a classifier learns from


@dataclass(frozen=True)
class Labelled:
    """What a classifier learns from; labels (N,), or label sets (N, K)."""

    images: Images
    labels: np.ndarray


@dataclass(frozen=True)
class Recognised:
    """Which test images a classifier recognised: `hits` (N,) bool, at `rows` (N,) of the official split."""

    rows: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True)
class Measured:
    """The measurements of an encoder or of encodings; None if not measurable.

    Attributes:
        score: of the central classifier on the official test split.
        reconstruction_loss: MSE per pixel of a fresh decoder fitted to the server's split.
        leakage: similarity of 1,000 test images, drawn with a fixed seed, and their encodings.
        recognised: the test images that `score` counts as right.
        noised_score: of the classifier on test encodings with the same noise, as a new patient's would
            have; None if encodings are not noised.
        attack_success: as `attack_success`, in a run with a backdoor.
    """

    score: ClassifierScore
    reconstruction_loss: float | None
    leakage: dict[str, float]
    classifier: FittedClassifier
    recognised: Recognised
    noised_score: ClassifierScore | None = None
    attack_success: Mapping[str, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, float | None]:
        """The measured columns of `rounds.csv`."""
        return {**self.score.as_row(), "reconstruction_loss": self.reconstruction_loss, **self.leakage}


def measure_encoder(
    encoder: nn.Module,
    dataset: Dataset,
    config: RunConfig,
    labelled: Labelled,
    head: nn.Module | None = None,
) -> Measured:
    """Test a classifier on the encoded official test split: `head`, or else one trained on `labelled`.

    No decoder leaves a hospital, so the reconstruction loss is that of a fresh decoder fitted to the
    server's split. A random encoder is measured in the same way, for comparison.
    """
    device = device_of(config.device)
    encoder = viewed(copy.deepcopy(encoder).to(device), config.views)
    step("encoding images")
    encoded = partial(encode, encoder, bits=config.encoding_bits)
    train, test = _all_encoded(encoded, labelled.images), encoded(dataset.test.images)
    same = labelled.images is dataset.val.images
    server_split = train if same else _all_encoded(encoded, dataset.val.images)
    loss = _reconstruction_loss(server_split, dataset, config)
    if head is None:
        classifier, score = fit(config, train, labelled.labels, test, dataset.test.labels)
    else:
        classifier, score = score_head(head, test, dataset.test.labels)
    attack = attack_success(config, classifier, dataset, encoded)
    leakage = similarity_of(dataset.test.images, test)
    found = recognised(classifier, test, dataset.test.labels)
    return Measured(score, loss, leakage, classifier, found, attack_success=attack)


def recognised(
    classifier: FittedClassifier, tested: np.ndarray, labels: np.ndarray, rows: np.ndarray | None = None
) -> Recognised:
    """Which encodings `tested` (N, *encoding) get their label, or every label of their set; `rows` as in
    `Recognised`, None: all.
    """
    scores = classifier.scores(tested)
    hits = ((scores > 0) == labels).all(1) if labels.ndim > 1 else scores.argmax(1) == labels
    return Recognised(np.arange(len(hits)) if rows is None else rows, hits)


def _all_encoded(encoded: Callable[[Images], np.ndarray], images: Images) -> np.ndarray:
    """The encodings of images, of which there may be none."""
    return encoded(images) if len(images) else np.empty(0, np.float32)


def _reconstruction_loss(encodings: np.ndarray, dataset: Dataset, config: RunConfig) -> float | None:
    """The loss of a probe decoder fitted to the server's split; None if that has fewer than two images."""
    if len(encodings) < 2:
        return None
    step("fitting a probe decoder")
    decoder = autoencoder_of(config).decoder.to(device_of(config.device))
    return probe_reconstruction_loss(
        encodings, dataset.val.images, decoder, public_seed(config), server_threads()
    )


def attack_success(
    config: RunConfig,
    classifier: FittedClassifier,
    dataset: Dataset,
    encoded: Callable[[Tensor], np.ndarray],
) -> dict[str, float]:
    """The attack success rate: the share of test images of other classes that the classifier assigns to the
    target class, with and without the trigger. Empty in a run without a backdoor.

    `encoded`: maps images (N, C, H, W) in [0, 1] to the classifier's input.
    """
    if config.adversary != BACKDOOR:
        return {}
    labels = dataset.test.labels

    def rate(shown: Callable[[Tensor], Tensor]) -> float:
        batches = image_batches(dataset.test.images)
        guesses = [classifier.scores(encoded(shown(batch))).argmax(1) for batch in batches]
        return success_rate(np.concatenate(guesses), labels)

    return {
        "attack_success_rate": rate(stamp),
        "attack_success_rate_untriggered": rate(lambda images: images),
    }


def encoder_leakage(encoder: nn.Module, dataset: Dataset, config: RunConfig) -> dict[str, float]:
    """What of an encoder can be measured without public images, as `Measured.leakage`."""
    encoder = viewed(copy.deepcopy(encoder).to(device_of(config.device)), config.views)
    return similarity_of(dataset.test.images, encode(encoder, dataset.test.images, bits=config.encoding_bits))


def measure_pixels(dataset: Dataset, config: RunConfig, labelled: Labelled) -> ClassifierScore:
    """The same classifier on the images themselves: the score without any privacy.

    Images of more than 32 pixels a side are averaged down to 28 x 28.
    """
    train, test = (_pixels(images) for images in (labelled.images, dataset.test.images))
    return fit(config, train, labelled.labels, test, dataset.test.labels)[1]


def _pixels(images: Images) -> np.ndarray:
    """(N, C, H, W) float32 in [0, 1]."""

    def small(batch: Tensor) -> Tensor:
        large = max(batch.shape[2:]) > _LARGEST_PIXELS
        return functional.adaptive_avg_pool2d(batch, _AVERAGED_PIXELS) if large else batch

    return torch.cat([small(batch) for batch in image_batches(images)]).numpy()


def fit(
    config: RunConfig,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    transition: np.ndarray | None = None,
) -> tuple[FittedClassifier, ClassifierScore]:
    """The server's classifier trained on `train` (N, *encoding) and scored on `test`.

    It is the run's own; where that is the common head, logistic regression.
    `transition`: how train labels were randomised; None if they are true.
    """
    classes = spec_of(config).num_classes
    seed, threads = public_seed(config), server_threads()
    device = device_of(config.device)
    classifier = "lr" if config.classifier == COMMON_HEAD else config.classifier
    step(f"training the classifier {classifier}")
    return fit_and_score(
        classifier,
        train,
        labels,
        test,
        test_labels,
        classes,
        seed,
        threads,
        transition,
        device=device,
    )


def similarity_of(images: Images, encodings: np.ndarray) -> dict[str, float]:
    """Similarity of up to 1,000 pairs of images and encodings (N, *encoding).

    Pairs are drawn with a fixed seed: the first ones may all be of one class, or of one hospital.
    """
    step("comparing encodings with images")
    rows = np.sort(np.random.default_rng(_LEAKAGE_SEED).permutation(len(images))[:LEAKAGE_IMAGES])
    report = asdict(similarity(images_at(images, rows), torch.from_numpy(encodings[rows])))
    del report["records"]
    return report
