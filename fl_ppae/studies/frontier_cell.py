"""One cell of `study frontier`: how useful the codes of an encoder are, and what attackers make of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal, hospital_names, make_deal, pooled
from fl_ppae.data.sources import resolve
from fl_ppae.models.build import released_format_of
from fl_ppae.models.encoding import encode
from fl_ppae.protection import COMMON_HEAD
from fl_ppae.server.classification import fit_and_score
from fl_ppae.server.evaluation import recognised
from fl_ppae.server.worth_joining import worth_joining
from fl_ppae.studies.federated_encoder import FederatedEncoder, train_federated
from fl_ppae.studies.frontier_attacks import attackers_of
from fl_ppae.studies.frontier_grid import HOSPITALS, PAPER, FrontierCell, FrontierScale
from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.workers import Rows

_DELTA = 1e-5
_PAPER_KEYS: dict[str, Any] = {"batch-size": 256, "learning-rate": 4e-3, "max-grad-norm": 1e-3}
_CODE_KEYS: dict[str, Any] = {
    "objective": "task",
    "start": "public",
    "trains": "head",
    "local-steps": 1,
    "sample-rate": 0.2,
    "classifier": "head",
    "learning-rate": 0.02,
    "max-grad-norm": 1.0,
}


def measure(cell: FrontierCell, data: StudyData, scale: FrontierScale) -> Rows:
    """Train the encoder and attack its encodings; a row for each classifier.

    The hospitals train the paper's encoder. A small code's is trained by the server on its public records,
    and the hospitals train the head on it together. `lr` and `mlp` learn from all hospitals' uploads.
    """
    config = cell_config(cell, data, scale)
    deal = make_deal(resolve(config), config, hospital_names(HOSPITALS))
    found = train_federated(config, deal)
    encoding = released_format_of(config)
    measured = {
        "public_records": len(deal.dataset.val),
        "objective": config.objective,
        "code_numbers": encoding.numbers,
        "code_bits": encoding.capacity,
        "encoder_epsilon": max(found.epsilon.values()),
        "encoder_formal": found.basis == "formal",
        **attackers_of(found.encoder, deal, scale, cell.seed).leakage(cell.bits),
    }
    return [{**measured, **row} for row in _classified(config, deal, found, alone=scale.alone)]


def cell_config(cell: FrontierCell, data: StudyData, scale: FrontierScale) -> RunConfig:
    """The configuration of the cell's run."""
    return RunConfig.from_flat(
        {
            "dataset": cell.dataset,
            "data-source": "file",
            "data-file": data.file,
            "autoencoder": cell.autoencoder,
            "encoding-size": cell.numbers,
            "encoding-bits": cell.bits,
            "target-delta": _DELTA,
            "num-server-rounds": scale.paper_rounds if cell.autoencoder == PAPER else scale.rounds,
            "min-records": 1,
            "evaluate-every": 0,
            "seed": cell.seed,
            **(_PAPER_KEYS if cell.autoencoder == PAPER else _CODE_KEYS),
        }
    )


def _classified(
    config: RunConfig, deal: Deal, found: FederatedEncoder, *, alone: bool
) -> Iterator[dict[str, Any]]:
    """Accuracy on the test split by classifier; only the common head needs no encoding of a hospital's."""
    encoded = partial(encode, found.encoder, bits=config.encoding_bits)
    test, truth = encoded(deal.dataset.test.images), np.ravel(deal.dataset.test.labels)
    images, labels = pooled(deal.train)
    learner = "lr" if config.autoencoder == PAPER else "mlp"
    classes = deal.dataset.spec.num_classes
    learned, _ = fit_and_score(learner, encoded(images), labels, test, truth, classes, config.seed, threads=1)
    recognitions = {learner: recognised(learned, test, truth)}
    if config.classifier == COMMON_HEAD:
        recognitions[COMMON_HEAD] = found.measured.recognised
    for name, recognition in recognitions.items():
        yield {
            "classifier": name,
            "run_formal": name == COMMON_HEAD and found.basis == "formal",
            "accuracy": float(recognition.hits.mean()),
            **({"gain_over_alone": worth_joining(config, deal, recognition)["mean_gain"]} if alone else {}),
        }
