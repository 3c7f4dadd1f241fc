"""Attribute inference: what an encoding reveals beyond the task's label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired

Array = NDArray[Any]

_FOLDS = 2


def infer_attribute(known: Array, attributes: Array, encodings: Array) -> Array:
    """The attacker's guess of the attribute of each of `encodings`, (N,).

    The most frequent attribute, a linear classifier or a random forest, whichever does best by
    cross-validation on the attacker's own encodings, makes the guesses.

    Args:
        known: encodings (M, *encoding) whose attribute the attacker knows.
        attributes: (M,) integers, at least two different ones, each at least twice.
        encodings: (N, *encoding).

    Raises:
        Unmeasurable: a number that is not finite, or attributes other than those above.
    """
    check_finite(known=known, encodings=encodings)
    check_paired(known=known, attributes=attributes)
    _, counts = np.unique(attributes, return_counts=True)
    if len(counts) < 2 or counts.min() < _FOLDS:
        found = ", ".join(map(str, counts))
        raise Unmeasurable(f"attributes need two values or more, {_FOLDS} times each, not {found} times")
    held, seen = (np.asarray(rows, np.float32).reshape(len(rows), -1) for rows in (known, encodings))
    attackers = (
        DummyClassifier(strategy="most_frequent"),
        make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=200, tol=1e-3)),
        RandomForestClassifier(100, min_samples_leaf=2, random_state=0),
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)  # in file order they may differ

    def practised(attacker: Any) -> float:
        return float(cross_val_score(attacker, held, attributes, cv=folds).mean())

    best = max(attackers, key=practised)
    guesses: Array = best.fit(held, attributes).predict(seen)
    return guesses
