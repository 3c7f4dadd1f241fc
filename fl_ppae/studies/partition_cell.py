"""One cell of `study partitions`: encoders trained with objective `task` on one split, then tested.

A hospital's own accuracy is the recall of each class on all test images, with the hospital's acquisition
shift, weighted by its label mix. It estimates accuracy on the hospital's own patients without the sampling
noise of a small test share.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT, AcquisitionShift
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import Deal, hospital_names, make_deal
from fl_ppae.data.records import HospitalRecords, to_float
from fl_ppae.data.sources import resolve
from fl_ppae.hospital.rounds import LocalTraining
from fl_ppae.hospital.training import round_terms
from fl_ppae.models.build import local_model_of
from fl_ppae.models.encoding import encode
from fl_ppae.privacy.plan import HospitalPlan, make_plan, plan_hospital, planned_terms
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.server.classification import FittedClassifier, fit_and_score
from fl_ppae.studies.federated_encoder import train_federated
from fl_ppae.studies.hits import packed
from fl_ppae.studies.partition_grid import ALONE, CENTRAL, DATASET, PARTITIONS, SHARED, PartitionCell
from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.workers import Rows

Array = NDArray[Any]

TARGET_EPSILON, DELTA = 8.0, 1e-5
ROUNDS = 10
BATCH = 64  # expected size in every hospital; smaller hospitals have a higher sample rate
CENTRAL_BATCH = 5 * BATCH  # so that central training takes as many steps as each of 5 hospitals
# Chosen by IID test accuracy with 5 hospitals and a seed that no study uses: rates of 4e-3, 1e-2 and 3e-2
# give 0.72, 0.73 and 0.78. Clip norms of 0.03 and 0.3 both give 0.72: Adam is invariant to their scale.
LEARNING_RATE, MAX_GRAD_NORM = 3e-2, 0.1


def measure(cell: PartitionCell, data: StudyData) -> Rows:
    """Run the cell; returns its one row.

    Raises:
        UserError: the records can't be split this way, for example because a hospital would have none.
    """
    config = cell_config(cell, data)
    dataset = resolve(config)
    deal = make_deal(dataset, config, hospital_names(cell.hospitals))
    hospitals = deal.train
    if cell.noise == SHARED:
        config = with_shared_noise(config, {name: len(records) for name, records in hospitals.items()})
    measured = _alone(config, deal) if cell.setting == ALONE else _common(config, deal)
    mixes = [label_mix(records, dataset) for records in hospitals.values()]
    sizes = [len(records) for records in hospitals.values()]
    row = {
        **measured,
        "delta": DELTA,
        "hellinger": heterogeneity(mixes, sizes),
        "records_min": min(sizes),
        "records_max": max(sizes),
    }
    return [row]


def cell_config(cell: PartitionCell, data: StudyData) -> RunConfig:
    """The configuration of the cell's run, with noise calibrated per hospital."""
    return RunConfig.from_flat(
        {
            "dataset": DATASET,
            "data-source": "file",
            "data-file": data.file,
            **PARTITIONS[cell.partition],
            "min-records": 1,
            "objective": "task",
            "autoencoder": "conv",
            "num-server-rounds": ROUNDS,
            "batch-size": CENTRAL_BATCH if cell.setting == CENTRAL else BATCH,
            "learning-rate": LEARNING_RATE,
            "max-grad-norm": MAX_GRAD_NORM,
            "dp-scope": "autoencoder",
            "target-epsilon": TARGET_EPSILON,
            "target-delta": DELTA,
            "evaluate-every": 0,
            "seed": cell.seed,
        }
    )


def with_shared_noise(config: RunConfig, records: Mapping[str, int]) -> RunConfig:
    """The run with the noise multiplier of an average-sized hospital and the largest target epsilon."""
    average = plan_hospital("average", max(1, round(sum(records.values()) / len(records))), config)
    most = RunConfig.model_fields["target_epsilon"].metadata
    ceiling = next(float(bound.le) for bound in most if hasattr(bound, "le"))
    return config.model_copy(update={"noise_multiplier": average.noise_multiplier, "target_epsilon": ceiling})


def label_mix(records: HospitalRecords, dataset: Dataset) -> Array:
    """The share of each class, (num_classes,); sums to 1."""
    counts = np.bincount(records.labels().numpy(), minlength=dataset.spec.num_classes)
    mix: Array = counts / counts.sum()
    return mix


def hellinger(left: Array, right: Array) -> float:
    """Distance of two distributions (K,), in [0, 1]: sqrt(1 - sum of sqrt(p q)); 1 for disjoint supports."""
    return float(np.sqrt(max(0.0, 1.0 - np.sqrt(left * right).sum())))


def heterogeneity(mixes: list[Array], sizes: list[int]) -> float:
    """Mean over hospitals of the Hellinger distance between their label mix and that of all records."""
    together = np.average(mixes, axis=0, weights=sizes)
    return float(np.mean([hellinger(mix, together) for mix in mixes]))


def _common(config: RunConfig, deal: Deal) -> dict[str, Any]:
    """One federated encoder; the classifier is fitted to the server's split, as with `share = updates`."""
    found = train_federated(config, deal)
    classifier = found.measured.classifier
    recalls: dict[AcquisitionShift, Array] = {}
    own_accuracies = []
    for records in deal.train.values():
        if records.shift not in recalls:
            recalls[records.shift] = _recall(classifier, found.encoder, deal.dataset, records.shift)
        own_accuracies.append(float(recalls[records.shift] @ label_mix(records, deal.dataset)))
    guesses = classifier.scores(_test(found.encoder, deal.dataset, NO_SHIFT)).argmax(1)
    spent = list(found.epsilon.values())
    columns = _columns(found.measured.score.accuracy, own_accuracies, spent, found.basis)
    return {**columns, "hits": packed(guesses == np.asarray(deal.dataset.test.labels))}


def _alone(config: RunConfig, deal: Deal) -> dict[str, Any]:
    """Train an encoder and a classifier in each hospital alone, on its records and under its epsilon."""
    plan = make_plan(config, {name: len(records) for name, records in deal.train.items()})
    accuracies, own_accuracies, spent = [], [], []
    for index, (one, records) in enumerate(zip(plan.hospitals, deal.train.values(), strict=True)):
        encoder = _train_alone(config, one, records, index)
        train, labels = encode(encoder, records.images()), records.labels().numpy()
        test, truth = _test(encoder, deal.dataset, records.shift), np.asarray(deal.dataset.test.labels)
        classes = deal.dataset.spec.num_classes
        classifier, score = fit_and_score("lr", train, labels, test, truth, classes, config.seed, threads=1)
        accuracies.append(score.accuracy)
        recall = _recall(classifier, encoder, deal.dataset, records.shift)
        own_accuracies.append(float(recall @ label_mix(records, deal.dataset)))
        assert one.epsilon_total is not None
        spent.append(one.epsilon_total)
    return _columns(float(np.mean(accuracies)), own_accuracies, spent, SCOPES[config.dp_scope].basis)


def _columns(
    accuracy: float, own_accuracies: list[float], epsilons: list[float], basis: str
) -> dict[str, Any]:
    """The row's columns from each hospital's accuracy on its own label mix and the epsilon it spent."""
    return {
        "accuracy": accuracy,
        "accuracy_hospitals": float(np.mean(own_accuracies)),
        "accuracy_worst": min(own_accuracies),
        "epsilon_min": min(epsilons),
        "epsilon_max": max(epsilons),
        "epsilon_status": basis,
    }


def _train_alone(config: RunConfig, plan: HospitalPlan, records: HospitalRecords, index: int) -> nn.Module:
    model = local_model_of(config)
    terms = round_terms(planned_terms(plan, config, run="alone"), config)
    draws = partial(streams, config.seed, index)
    LocalTraining(model, records, terms, draws).train_rounds(config.num_server_rounds)
    return model.encoder


def _test(encoder: nn.Module, dataset: Dataset, shift: AcquisitionShift) -> Array:
    """Encodings (N, *encoding) of the test images with this acquisition shift."""
    if shift == NO_SHIFT:
        return encode(encoder, dataset.test.images)
    return encode(encoder, shift.apply(to_float(dataset.test.images)))


def _recall(
    classifier: FittedClassifier, encoder: nn.Module, dataset: Dataset, shift: AcquisitionShift
) -> Array:
    """Accuracy on the test images of each class, (num_classes,)."""
    truth = np.asarray(dataset.test.labels)
    right = classifier.scores(_test(encoder, dataset, shift)).argmax(1) == truth
    return np.array(
        [
            right[truth == label].mean() if (truth == label).any() else 0.0
            for label in range(dataset.spec.num_classes)
        ]
    )
