"""Infers the class mix of a hospital's records from its updates, by regression on simulated hospitals.

Property inference by a model of updates with known properties (Ganju et al. 2018, ACM CCS; Melis et al.
2019, arXiv:1805.04049).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired, check_shares

Array = NDArray[Any]

_STRENGTHS = (np.inf, *(10.0 ** np.arange(6, -7, -1)))  # times the mean eigenvalue; of equals the first
_ALIKE = 2.0  # standard errors
_LEAST_SHARE = 1e-3  # of a class, for Dirichlet's distribution
_CONCENTRATIONS = (0.1, 0.5, 2.0, 20.0)


def random_mixes(count: int, usual: Array, seed: int) -> Array:
    """Class shares (count, K) about `usual` (K,), from nearly one class to nearly `usual`; Dirichlet's."""
    rng = np.random.default_rng(seed)
    centre = np.maximum(usual, _LEAST_SHARE) * len(usual)
    rows = [rng.dirichlet(_CONCENTRATIONS[index % len(_CONCENTRATIONS)] * centre) for index in range(count)]
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


def fit_and_predict(known: Array, mixes: Array, seen: Array, usual: Array) -> Array:
    """Class shares (H, K), each row on the simplex, of updates `seen` (H, P).

    Dual ridge regression of mixes (S, K), less `usual` (K,), on known updates (S, P); the strength has the
    least leave-one-out error on the simulated hospitals, in closed form. Infinite strength is one of them:
    it guesses `usual`. All hospitals also get `usual` if the regression is of no use to hospitals like them.

    `mixes` are from `random_mixes`, in its order.

    Raises:
        Unmeasurable: a number that is not finite, not a mix for each known update, or mixes that are no
            shares.
    """
    check_finite(known=known, seen=seen)
    check_shares(mixes=mixes, usual=usual)
    check_paired(2, known=known, mixes=mixes)
    mean = known.mean(0)
    centred, outputs = known - mean, mixes - usual
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values = np.maximum(values, 0)
    level = values.mean() or 1.0  # of updates that are all the same

    def left_out(strength: float) -> Array:
        hat = (vectors * (values / (values + strength * level))) @ vectors.T
        wrong: Array = (outputs - hat @ outputs) / np.maximum(1 - np.diag(hat), 1e-6)[:, None]
        return outputs - wrong

    strength = min(_STRENGTHS, key=lambda strength: float(np.mean((outputs - left_out(strength)) ** 2)))
    weights = (vectors / (values + strength * level)) @ vectors.T @ outputs
    guesses = to_simplex((seen - mean) @ centred.T @ weights + usual)
    practised = to_simplex(left_out(strength) + usual)
    return guesses if _helps(guesses, practised, mixes, usual) else np.tile(usual, (len(seen), 1))


def _helps(guesses: Array, practised: Array, mixes: Array, usual: Array) -> bool:
    """Whether guesses about such hospitals are nearer to the truth than `usual`, as far as practice tells.

    Practice are the left-out guesses for simulated hospitals. In every group of them that may be as uneven as
    the real ones, by the guesses' distances from `usual`, the guesses must have been nearer to the truth.
    """
    seen, distances = total_variation(guesses, usual), total_variation(practised, usual)
    gained = total_variation(mixes, usual) - total_variation(practised, mixes)
    groups = [slice(first, None, len(_CONCENTRATIONS)) for first in range(len(_CONCENTRATIONS))]

    def apart(group: slice) -> float:
        """How many standard errors the group's distances are from those of the real hospitals."""
        theirs = distances[group]
        error = np.sqrt(seen.var() / len(seen) + theirs.var() / len(theirs))
        return float(abs(theirs.mean() - seen.mean()) / max(error, 1e-12))

    nearest = min(groups, key=apart)
    return all(gained[group].mean() > 0 for group in groups if group == nearest or apart(group) < _ALIKE)


def to_simplex(rows: Array) -> Array:
    """The class shares nearest to each row (H, K): none negative, sum 1 (Duchi et al. 2008, ICML)."""
    ordered = -np.sort(-rows, axis=1)
    excess = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, rows.shape[1] + 1)
    last = (ordered > excess).sum(1) - 1
    shares: Array = np.maximum(rows - excess[np.arange(len(rows)), last][:, None], 0)
    return shares


def total_variation(one: Array, other: Array) -> Array:
    """Half the L1 distance (H,) between class shares (H, K); in [0, 1].

    Raises:
        Unmeasurable: rows that are no shares.
    """
    check_shares(one=one, other=other)
    distance: Array = np.abs(one - other).sum(1) / 2
    return distance
