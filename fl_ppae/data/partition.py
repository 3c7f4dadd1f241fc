"""Divides a split's records among hospitals, by flwr-datasets' partitioners on the labels alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError

# Two draws from one seed must differ.
_TRAIN_STREAM, _TEST_STREAM = 1, 2


def partition(
    labels: np.ndarray, config: RunConfig, num_hospitals: int, patients: np.ndarray | None = None
) -> list[np.ndarray]:
    """Each hospital's records of the train split, by `config.partition`, `config.seed` and its settings.

    With `patients`, whole patients are dealt, each by the class that most of its records have, so that all
    records of a patient are in one hospital.

    - `iid`, `acquisition-shift`: equal shares of a shuffled split.
    - `dirichlet`: shares of each class are drawn from a Dirichlet distribution with `dirichlet-alpha`.
    - `pathological`: each hospital has `classes-per-hospital` classes; hospital h has class h modulo the
      number of classes, the others are drawn. Records of a class that no hospital has are left out.
    - `quantity-skew`: hospital h has h + 1 shares, with classes mixed as in the whole split.

    Args:
        labels: (N,) integers; (N, K) of a multi-label set, which has no partition by classes.
        config: of the run; a seed of -1 counts as 0 here. `natural` is not for here but `natural_shares`.
        num_hospitals: at least 1.
        patients: (N,) integers, the same for records of the same patient.

    Returns:
        A sorted array of indices into `labels` for each hospital; no index appears twice.

    Raises:
        UserError: the partition is impossible, or a hospital would have fewer than `min-records`.
    """
    if patients is not None:
        numbers, of_patient = np.unique(patients, return_inverse=True)
        counts = np.zeros((len(numbers), labels.max() + 1), np.int64)
        np.add.at(counts, (of_patient, labels), 1)
        dealt = _dealt(counts.argmax(axis=1), config, num_hospitals)
        shares = [np.flatnonzero(np.isin(of_patient, share)) for share in dealt]
    else:
        shares = _dealt(labels, config, num_hospitals)
    _check_sizes([len(share) for share in shares], config)
    return shares


def natural_shares(
    hospitals: np.ndarray | None, patients: np.ndarray | None, config: RunConfig, num_hospitals: int
) -> list[np.ndarray]:
    """Each hospital's records of the train split as the data say: sorted arrays of indices.

    Args:
        hospitals: (N,) integers from 0, a record's hospital; negative if nothing says it. None: of no record.
        patients: as for `partition`.

    Raises:
        UserError: some records have no hospital, there are more or fewer hospitals than in the federation,
            patients have records in several, or one has fewer than `min-records`.
    """
    if hospitals is None:
        raise UserError("partition = natural needs a manifest with the column hospital; this data has none")
    if without := int((hospitals < 0).sum()):
        raise UserError(f"partition = natural: {without} train records have no hospital in the manifest")
    present = np.unique(hospitals)
    if len(present) != num_hospitals:
        raise UserError(
            f"partition = natural: the train records are of {len(present)} hospitals, but the federation has "
            f"{num_hospitals}; use --hospitals {len(present)}"
        )
    if patients is not None:
        _, places = np.unique(np.stack([patients, hospitals]), axis=1, return_index=True)
        several = int((np.unique(patients[places], return_counts=True)[1] > 1).sum())
        if several:
            raise UserError(
                f"partition = natural: {several} patients have train records in several hospitals; if each "
                "hospital numbers its own patients, write its name before the number"
            )
    shares = [np.flatnonzero(hospitals == hospital) for hospital in present]
    _check_sizes([len(share) for share in shares], config)
    return shares


def _dealt(labels: np.ndarray, config: RunConfig, num_hospitals: int) -> list[np.ndarray]:
    """The shares of `partition`, whatever their sizes; `labels` are those of records or of patients."""
    _check_possible(labels, config, num_hospitals)
    seed = max(config.seed, 0)
    order = np.random.default_rng([_TRAIN_STREAM, seed]).permutation(len(labels))
    try:
        return _deal(labels, order, _partitioner(config, num_hospitals, seed), num_hospitals)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"partition = {config.partition} of {len(labels)} records to {num_hospitals} hospitals "
            f"is not possible: {reason}"
        ) from None


def share_out(
    num_records: int, num_hospitals: int, seed: int, patients: np.ndarray | None = None
) -> list[np.ndarray]:
    """Equal shares of a shuffled split of `num_records`: each hospital's part of the official test split.

    With `patients`, as for `partition`, they are equal shares of the patients.
    Returns sorted arrays that together contain every index once. A seed of -1 counts as 0.

    Raises:
        UserError: there are fewer records, or patients, than hospitals.
    """
    units = num_records if patients is None else len(np.unique(patients))
    if units < num_hospitals:
        what = "records" if patients is None else "patients"
        raise UserError(f"{units} test {what} are too few for {num_hospitals} hospitals")
    order = np.random.default_rng([_TEST_STREAM, max(seed, 0)]).permutation(units)
    shares = np.array_split(order, num_hospitals)
    if patients is None:
        return [np.sort(share) for share in shares]
    _, of_patient = np.unique(patients, return_inverse=True)
    return [np.flatnonzero(np.isin(of_patient, share)) for share in shares]


def _partitioner(config: RunConfig, num_hospitals: int, seed: int) -> Any:
    # Imported here: it takes seconds, and most processes never need it.
    from flwr_datasets import partitioner

    if config.partition == "dirichlet":
        # The partitioner would redraw until its own minimum is met; ours is an error that names the hospital.
        return partitioner.DirichletPartitioner(
            num_hospitals, "label", config.dirichlet_alpha, min_partition_size=0, seed=seed
        )
    if config.partition == "pathological":
        return partitioner.PathologicalPartitioner(
            num_hospitals,
            "label",
            config.classes_per_hospital,
            class_assignment_mode="first-deterministic",
            seed=seed,
        )
    if config.partition == "quantity-skew":
        return partitioner.LinearPartitioner(num_hospitals)
    return partitioner.IidPartitioner(num_hospitals)


def _deal(labels: np.ndarray, order: np.ndarray, partitioner: Any, num_hospitals: int) -> list[np.ndarray]:
    """Run the partitioner on the labels in `order`: not every partitioner shuffles."""
    from datasets import Dataset

    classes = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)  # the partition reads none
    rows = Dataset.from_dict({"label": classes[order], "row": order})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        partitioner.dataset = rows
        shares = [partitioner.load_partition(hospital) for hospital in range(num_hospitals)]
    return [np.sort(share.with_format("numpy")["row"][:].astype(np.int64)) for share in shares]


def _check_possible(labels: np.ndarray, config: RunConfig, num_hospitals: int) -> None:
    if num_hospitals < 1:
        raise UserError(f"{num_hospitals} hospitals; at least 1 is needed")
    if num_hospitals > len(labels):
        raise UserError(
            f"{len(labels)} records are too few for {num_hospitals} hospitals; use fewer hospitals"
        )
    present = len(np.unique(labels))
    if config.partition == "pathological" and config.classes_per_hospital > present:
        raise UserError(
            f"classes-per-hospital = {config.classes_per_hospital}, but the data has {present} classes"
        )


def _check_sizes(sizes: list[int], config: RunConfig) -> None:
    small = [(hospital, size) for hospital, size in enumerate(sizes) if size < config.min_records]
    if not small:
        return
    named = [f"hospital-{hospital} would have {size} records" for hospital, size in small[:3]]
    more = [f"{len(small) - 3} more"] if len(small) > 3 else []
    remedy = "a larger dirichlet-alpha or " if config.partition == "dirichlet" else ""
    raise UserError(
        f"{', '.join(named + more)}, fewer than min-records = {config.min_records}; "
        f"use fewer hospitals, {remedy}a smaller min-records"
    )
