"""Infers the class mix of a hospital's records from its updates, by regression on simulated hospitals.

Property inference by a model of updates with known properties (Ganju et al. 2018, ACM CCS; Melis et al.
2019, arXiv:1805.04049).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_ppae.leakage.finite import check_finite

Array = NDArray[Any]

_STRENGTHS = 10.0 ** np.arange(-6, 7)  # times the mean eigenvalue
_CONCENTRATIONS = (0.1, 0.5, 2.0, 20.0)


def random_mixes(count: int, classes: int, seed: int) -> Array:
    """Class shares (count, classes), from nearly one class to nearly even, Dirichlet distributed."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.dirichlet(np.full(classes, _CONCENTRATIONS[index % len(_CONCENTRATIONS)]))
        for index in range(count)
    ]
    return np.array(rows)


def draw_mix(labels: Array, mix: Array, records: int, rng: np.random.Generator) -> Array:
    """Positions (records,) in `labels` (N,), drawn with replacement by the class shares `mix`.

    The share of a class that `labels` lacks is spread over the others.
    """
    shares = mix * (np.bincount(labels, minlength=len(mix)) > 0)
    counts = rng.multinomial(records, shares / shares.sum())
    drawn = [
        rng.choice(np.flatnonzero(labels == label), count) for label, count in enumerate(counts) if count
    ]
    return np.concatenate(drawn)


def fit_and_predict(known: Array, mixes: Array, seen: Array) -> Array:
    """Class shares (H, K), each row on the simplex, of updates `seen` (H, P).

    Dual ridge regression of mixes (S, K) on known updates (S, P); the strength has the least leave-one-out
    error on the simulated hospitals, in closed form. Updates of nearly pure noise give the mean mix.

    Raises:
        ValueError: a number that is not finite.
    """
    check_finite(known=known, mixes=mixes, seen=seen)
    mean, target = known.mean(0), mixes.mean(0)
    centred, outputs = known - mean, mixes - target
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values = np.maximum(values, 0)
    level = max(values.mean(), 1e-30)

    def error(strength: float) -> float:
        hat = (vectors * (values / (values + strength * level))) @ vectors.T + 1 / len(known)
        left_out = (outputs - hat @ outputs) / np.maximum(1 - np.diag(hat), 1e-6)[:, None]
        return float(np.mean(left_out**2))

    strength = min(_STRENGTHS, key=error)
    weights = (vectors / (values + strength * level)) @ vectors.T @ outputs
    return to_simplex((seen - mean) @ centred.T @ weights + target)


def to_simplex(rows: Array) -> Array:
    """The class shares nearest to each row (H, K): none negative, sum 1 (Duchi et al. 2008, ICML)."""
    ordered = -np.sort(-rows, axis=1)
    excess = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, rows.shape[1] + 1)
    last = (ordered > excess).sum(1) - 1
    shares: Array = np.maximum(rows - excess[np.arange(len(rows)), last][:, None], 0)
    return shares


def total_variation(one: Array, other: Array) -> Array:
    """Half the L1 distance (H,) between class shares (H, K); in [0, 1]."""
    distance: Array = np.abs(one - other).sum(1) / 2
    return distance
