"""Learning from noised encodings and randomised labels with known noise."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from fl_ppae.privacy.labels import randomised_response, transition
from fl_ppae.privacy.randomness import seeded_stream
from fl_ppae.server.classification import fit_and_score, released_label_loss
from fl_ppae.server.noised_classifier import classifier_of, moments

CLASSES, SIZE = 4, 6


def drawn(records: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clipped rows (N, 6) of four overlapping classes of unequal size, and their labels."""
    rng = np.random.default_rng(seed)
    centres = 0.25 * np.random.default_rng(99).normal(size=(CLASSES, SIZE))
    labels = rng.choice(CLASSES, size=records, p=[0.4, 0.3, 0.2, 0.1])
    spread = np.linspace(0.05, 0.4, SIZE)
    rows = centres[labels] + spread * rng.normal(size=(records, SIZE))
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(norms, 1)).astype(np.float32), labels


def accuracy(classifier: object, rows: np.ndarray, labels: np.ndarray) -> float:
    return float((classifier.probabilities(rows).argmax(1) == labels).mean())  # type: ignore[attr-defined]


TRAIN, TEST = drawn(12_000, 0), drawn(3_000, 1)


def test_without_noise_it_is_linear_discriminant_analysis() -> None:
    rows, labels = TRAIN
    found = classifier_of(moments(rows, labels, CLASSES, 0.0, 0.0), noised_input=False)
    oracle = LinearDiscriminantAnalysis().fit(rows, labels)
    agreement = (found.probabilities(TEST[0]).argmax(1) == oracle.predict(TEST[0])).mean()
    assert agreement > 0.995


@pytest.mark.parametrize(("noise", "label_epsilon"), [(0.6, 0.0), (1.2, 0.0), (1.2, 2.0), (0.3, 1.0)])
def test_it_learns_from_noise_where_logistic_regression_fails(noise: float, label_epsilon: float) -> None:
    rows, labels = TRAIN
    rng = np.random.default_rng(4)
    rows = (rows + noise * rng.normal(size=rows.shape)).astype(np.float32)
    if label_epsilon:
        labels = randomised_response(labels, label_epsilon, CLASSES, seeded_stream(4))
    found = classifier_of(moments(rows, labels, CLASSES, noise, label_epsilon), noised_input=False)
    naive = LogisticRegression().fit(rows, labels).score(*TEST)
    without_noise = classifier_of(moments(*TRAIN, CLASSES, 0.0, 0.0), noised_input=False)
    assert accuracy(found, *TEST) > naive + 0.03
    assert accuracy(found, *TEST) > accuracy(without_noise, *TEST) - 0.15


def test_the_classifier_for_noised_inputs_is_better_on_noised_inputs() -> None:
    rng = np.random.default_rng(4)
    noise = 0.5
    rows = (TRAIN[0] + noise * rng.normal(size=TRAIN[0].shape)).astype(np.float32)
    test = (TEST[0] + noise * rng.normal(size=TEST[0].shape)).astype(np.float32)
    learned = moments(rows, TRAIN[1], CLASSES, noise, 0.0)
    for_noised, for_plain = (classifier_of(learned, noised_input=kind) for kind in (True, False))
    assert accuracy(for_noised, test, TEST[1]) > accuracy(for_plain, test, TEST[1])
    assert accuracy(for_plain, *TEST) > accuracy(for_noised, *TEST)


@pytest.mark.parametrize("noise", [0.0, 1.0, 100.0])
def test_scores_are_finite_for_a_class_without_records_and_for_overwhelming_noise(noise: float) -> None:
    rng = np.random.default_rng(0)
    rows = (TRAIN[0][:50] + noise * rng.normal(size=(50, SIZE))).astype(np.float32)
    for label_epsilon in (0.0, 0.5):
        learned = moments(rows, TRAIN[1][:50] % 2, CLASSES, noise, label_epsilon)
        for kind in (True, False):
            probabilities = classifier_of(learned, noised_input=kind).probabilities(TEST[0])
            assert np.isfinite(probabilities).all()
            np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("classifier", ["lr", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_plain_encodings_with_randomised_labels_are_learned_by_the_corrected_loss(classifier: str) -> None:
    """The classes are unequal and few labels are true: without the correction the largest class wins."""
    epsilon = 0.8
    rows, labels = TRAIN[0], TRAIN[1]
    test_rows, test_labels = TEST
    if classifier == "resnet18":
        rows, test_rows = (np.tile(part, (1, 9))[:, :49] for part in (rows, test_rows))
    released = randomised_response(labels, epsilon, CLASSES, seeded_stream(1))
    scores = [
        fit_and_score(classifier, rows, released, test_rows, test_labels, CLASSES, 0, 1, spread)[1].accuracy
        for spread in (None, transition(epsilon, CLASSES))
    ]
    assert scores[1] > scores[0] + 0.02
    truth = fit_and_score(classifier, rows, labels, test_rows, test_labels, CLASSES, 0, 1)[1].accuracy
    assert scores[1] > truth - 0.05


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_the_corrected_loss_has_a_gradient_at_any_confidence(scale: float) -> None:
    """A probability below 1e-12 used to be cut off, and with it what pulls a wrong score back."""
    scores = torch.tensor([[scale, 0.0, 0.0]], requires_grad=True)
    for spread in (np.eye(3), transition(60.0, 3)):
        loss = released_label_loss(scores, torch.tensor([1]), torch.from_numpy(spread))
        (slope,) = torch.autograd.grad(loss, scores)
        assert slope.isfinite().all()
        if spread[0, 1] == 0 or scale < 40:
            assert slope[0, 0] > 0.5
            assert slope[0, 1] < 0
            assert loss.item() == pytest.approx(scale, abs=1.2)


def test_the_corrected_loss_without_randomisation_is_the_usual_regression() -> None:
    rows, labels = TRAIN[0][:2000], TRAIN[1][:2000]
    usual, corrected = (
        fit_and_score("lr", rows, labels, *TEST, CLASSES, 0, 1, spread)[0].probabilities(TEST[0])
        for spread in (None, np.eye(CLASSES))
    )
    np.testing.assert_allclose(usual, corrected, atol=0.01)
