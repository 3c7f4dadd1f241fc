"""The labelled images that the server has: all of the validation split, or a class-balanced draw from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fl_ppae.data.cache import Dataset, Split
from fl_ppae.errors import UserError

EVERY_RECORD = -1
_STREAM = 3  # unlike those of the partitions, which are drawn from the same seed


def with_public_records(dataset: Dataset, count: int, seed: int) -> Dataset:
    """`dataset` with only `count` records in its validation split; unchanged for `EVERY_RECORD`.

    Raises:
        UserError: the split has fewer.
    """
    if count == EVERY_RECORD:
        return dataset
    if count > len(dataset.val):
        raise UserError(
            f"public-records = {count}, but the validation split of {dataset.spec.title} has only "
            f"{len(dataset.val):,} images; use at most that, or {EVERY_RECORD} for all"
        )
    rows = public_positions(np.asarray(dataset.val.labels), count, seed)
    chosen = Split(dataset.val.images[rows], dataset.val.labels[rows])
    identities = {**dataset.identities, "val": dataset.identities["val"][rows]}
    return replace(dataset, val=chosen, identities=identities)


def public_positions(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted positions of `count` of the records with these labels (N,), as many of each class as possible.

    Records with label sets (N, K) have no class: any are as good. They are drawn by `seed`, where -1 counts
    as 0, and a larger `count` keeps those of a smaller one.
    """
    order = np.random.default_rng([_STREAM, max(seed, 0)]).permutation(len(labels))
    if labels.ndim > 1:
        return np.sort(order[:count])
    shuffled = labels[order]
    ranks = np.empty(len(labels), np.int64)  # of a record within its class
    for label in np.unique(labels):
        of_class = np.flatnonzero(shuffled == label)
        ranks[of_class] = np.arange(len(of_class))
    return np.sort(order[np.argsort(ranks, kind="stable")][:count])
