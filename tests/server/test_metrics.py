"""Metrics of a classifier, beside those of scikit-learn and of MedMNIST's own evaluator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from fl_ppae.server.metrics import calibration_error, macro_auc, score


def drawn(classes: int, records: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Unbalanced labels, and scores that know something of them."""
    rng = np.random.default_rng(classes)
    labels = rng.choice(classes, records, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    scores = rng.normal(size=(records, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, scores.astype(np.float32)


def drawn_sets(labels: int = 6, records: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Rare labels, several a record, and scores that know something of them."""
    rng = np.random.default_rng(labels)
    held = (rng.random((records, labels)) < np.linspace(0.05, 0.4, labels)).astype(np.int64)
    return held, (rng.normal(size=held.shape) + 2 * held - 1.5).astype(np.float32)


@pytest.mark.parametrize("task", ["multi-class", "ordinal-regression", "binary-class", "multi-label"])
def test_accuracy_and_auc_are_those_of_medmnists_evaluator(task: str) -> None:
    from medmnist.evaluator import getACC, getAUC

    labels, scores = drawn_sets() if task == "multi-label" else drawn(2 if task == "binary-class" else 5)
    logits = torch.from_numpy(scores).double()
    likely = (logits.sigmoid() if task == "multi-label" else logits.softmax(1)).numpy()
    name = "multi-label, binary-class" if task == "multi-label" else task
    found = score(labels, scores)
    assert found.accuracy == pytest.approx(getACC(labels, likely, name))
    assert found.auc == pytest.approx(getAUC(labels, likely, name))


def test_recall_of_each_class_and_balanced_accuracy_are_those_of_scikit_learn() -> None:
    labels, scores = drawn(5)
    found, guesses = score(labels, scores), scores.argmax(1)
    matrix = confusion_matrix(labels, guesses)
    assert found.recall == pytest.approx(tuple(matrix.diagonal() / matrix.sum(1)))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert found.as_row()["worst_recall"] == min(found.recall)
    assert found.balanced_accuracy != pytest.approx(found.accuracy)  # the control
    distances = matrix * np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    assert found.class_distance == pytest.approx(distances.sum() / matrix.sum())


def test_a_label_set_is_as_many_two_class_tasks() -> None:
    labels, scores = drawn_sets()
    found, guesses = score(labels, scores), (scores > 0).astype(int)
    each = [balanced_accuracy_score(*pair) for pair in zip(labels.T, guesses.T, strict=True)]
    assert found.balanced_accuracy == pytest.approx(np.mean(each))
    matrices = [confusion_matrix(*pair) for pair in zip(labels.T, guesses.T, strict=True)]
    assert found.recall == pytest.approx(tuple(matrix[1, 1] / matrix[1].sum() for matrix in matrices))
    assert found.accuracy == pytest.approx(np.mean([matrix.trace() / len(labels) for matrix in matrices]))


def test_the_calibration_error_is_that_of_scikit_learns_curve() -> None:
    labels, scores = drawn(4)
    likely = torch.from_numpy(scores).double().softmax(1).numpy()
    confidence, right = likely.max(1), likely.argmax(1) == labels
    accuracies, confidences = calibration_curve(right, confidence, n_bins=15)
    edges = np.linspace(0, 1, 16)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=15)
    expected = np.average(np.abs(accuracies - confidences), weights=counts[counts > 0])
    assert score(labels, scores).ece == pytest.approx(expected)


def test_the_calibration_error_of_a_known_case() -> None:
    sure = np.full(100, 0.9)
    assert calibration_error(sure, np.arange(100) < 90) == pytest.approx(0)
    assert calibration_error(sure, np.arange(100) < 60) == pytest.approx(0.3)
    assert calibration_error(np.ones(10), np.ones(10, bool)) == 0


def test_a_class_without_records_has_no_recall_and_counts_in_no_mean() -> None:
    labels, scores = drawn(3)
    more = np.pad(scores, ((0, 0), (0, 1)), constant_values=-9)
    found = score(labels, more)
    assert np.isnan(found.recall[3])
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert found.as_row()["worst_recall"] == min(found.recall[:3])


def test_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 6, 300), rng.dirichlet(np.ones(6), 300)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert macro_auc(labels, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1.0, 15.0, 50.0, 1000.0])
def test_auc_keeps_the_order_of_scores_whose_probabilities_saturate(scale):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    margins = rng.normal(size=400) + 1.5 * labels
    scores = np.stack([0 * margins, scale * margins], 1).astype(np.float32)
    exact = roc_auc_score(labels, margins)  # of two classes, whatever the scale
    assert score(labels, scores).auc == pytest.approx(exact, abs=1e-4)
    rounded = macro_auc(labels, torch.from_numpy(scores).softmax(1).numpy())  # the control
    assert (rounded < exact - 1e-3) == (scale >= 15)


@pytest.mark.parametrize("classes", [3, 8])
def test_auc_is_that_of_exact_probabilities_where_they_do_not_saturate(classes):
    rng = np.random.default_rng(classes)
    labels, scores = rng.integers(0, classes, 300), rng.normal(size=(300, classes)).astype(np.float32)
    exact = torch.from_numpy(scores).double().softmax(1).numpy()
    assert score(labels, scores).auc == pytest.approx(macro_auc(labels, exact))


def test_scores_that_are_not_finite_have_no_accuracy():
    scores = np.zeros((4, 2), np.float32)
    score(np.array([0, 1, 0, 1]), scores)
    scores[1, 1] = np.nan
    with pytest.raises(ValueError, match="nothing can be measured"):
        score(np.array([0, 1, 0, 1]), scores)


def test_auc_leaves_out_a_class_that_is_missing():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 3, 300), rng.dirichlet(np.ones(4), 300)
    seen = [roc_auc_score(labels == label, probabilities[:, label]) for label in range(3)]
    assert macro_auc(labels, probabilities) == pytest.approx(np.mean(seen))
    assert np.isnan(macro_auc(np.zeros(5, int), probabilities[:5]))
