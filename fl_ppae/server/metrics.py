"""How good a classifier is: accuracy, AUC, balanced accuracy, recall of each class, calibration.

Accuracy and AUC are those of MedMNIST's evaluator (arXiv:2110.14795) for each of its tasks. Labels (N,) are
classes; labels (N, K), each 0 or 1, are those of a multi-label set, of which each label is a task of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl_ppae.leakage.finite import check_finite
from fl_ppae.models.log_odds import log_odds

Array = NDArray[Any]

NEVER = -1e4  # the score of a class without train records: probability 0
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassifierScore:
    """The score of a classifier, each from 0 to 1.

    Attributes:
        accuracy: share of records given their class; of label sets, of labels that are right, at 0.5.
        auc: as `macro_auc`.
        balanced_accuracy: mean recall of the classes; of label sets, mean over labels of the mean of recall
            and specificity.
        ece: as `calibration_error`.
        recall: of each class, (K,): share of its records given it; NaN for one without records.
        class_distance: mean distance of the given class from the true one; for classes in an order.
    """

    accuracy: float
    auc: float
    balanced_accuracy: float
    ece: float
    recall: tuple[float, ...]
    class_distance: float

    def as_row(self) -> dict[str, float]:
        """The columns of `rounds.csv`."""
        return {
            "accuracy": self.accuracy,
            "auc": self.auc,
            "balanced_accuracy": self.balanced_accuracy,
            "worst_recall": min((one for one in self.recall if not isnan(one)), default=nan),
            "ece": self.ece,
        }


def score(labels: Array, scores: Array) -> ClassifierScore:
    """The score of class scores (N, K), logits, against labels (N,) or (N, K).

    The AUC ranks by log-odds, which order records as exact probabilities do. A class that the classifier
    never saw has the same probability for all, 0.

    Raises:
        ValueError: a score is not finite.
    """
    from sklearn.metrics import recall_score

    check_finite(scores=scores)
    label_sets = labels.ndim == 2
    exact = torch.from_numpy(scores).double()
    if label_sets:
        likely, ranking = exact.sigmoid().numpy(), scores
        guesses: Array = (scores > 0).astype(np.int64)
        right, confidence = (guesses == labels).ravel(), np.maximum(likely, 1 - likely).ravel()
    else:
        ranking = np.where(scores == NEVER, NEVER, log_odds(torch.from_numpy(scores)).numpy())
        guesses = scores.argmax(1)
        right, confidence = guesses == labels, exact.softmax(1).amax(1).numpy()
    classes = None if label_sets else list(range(scores.shape[1]))
    recall = recall_score(labels, guesses, labels=classes, average=None, zero_division=np.nan)
    balanced = recall
    if label_sets:
        specificity = recall_score(1 - labels, 1 - guesses, average=None, zero_division=np.nan)
        balanced = (recall + specificity) / 2
    return ClassifierScore(
        accuracy=float(right.mean()),
        auc=macro_auc(labels, ranking),
        balanced_accuracy=_mean(balanced),
        ece=calibration_error(confidence, right),
        recall=tuple(recall.tolist()),
        class_distance=float(np.abs(guesses - labels).mean()),
    )


def macro_auc(labels: Array, ranking: Array) -> float:
    """The mean over classes of one-vs-rest areas under the ROC curve, as in MedMNIST (arXiv:2110.14795).

    labels (N,), or (N, K) of label sets, whose areas are those of each label; ranking (N, K), higher the
    likelier, ties counted half. A class that none or all of the records have is left out, because it has no
    curve. If no class is left, the result is NaN.
    """
    from sklearn.metrics import roc_auc_score

    held = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(ranking.shape[1])
    areas = [
        roc_auc_score(own, ranking[:, label])
        for label, own in enumerate(held.T)
        if 0 < np.count_nonzero(own) < len(own)
    ]
    return _mean(np.array(areas))


def calibration_error(confidence: Array, right: Array) -> float:
    """The expected calibration error: how far confidence is from accuracy (arXiv:1706.04599, eq. 3).

    The mean over `CALIBRATION_BINS` equal bins of confidence, weighted by their records, of the distance
    between mean confidence and accuracy.

    confidence (N,): the probability that the classifier gives its own guess; right (N,): whether it is right.
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges[1:-1], confidence)
    distances = np.bincount(bins, confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(distances).sum() / len(confidence))


def _mean(values: Array) -> float:
    """Of the values that are numbers; NaN if there are none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else nan
