"""One cell of `study paper`: a federated encoder or a baseline, measured as in the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import Deal, hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.leakage.image_quality import class_mean_images, image_quality, mean_images
from fl_ppae.leakage.inversion import Pairs, fit_inverters
from fl_ppae.leakage.similarity import similarity
from fl_ppae.models.build import autoencoder_of
from fl_ppae.models.encoding import encode, images_to_tensor
from fl_ppae.server.classification import fit_and_score
from fl_ppae.studies.baselines import pca_components, pca_encode, scatter_encode
from fl_ppae.studies.federated_encoder import train_federated
from fl_ppae.studies.hits import packed
from fl_ppae.studies.paper_grid import CLASSIFIERS, TUNED, PaperCell, PaperScale
from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.workers import Rows

Array = NDArray[Any]
Encode = Callable[[Array], Array]
DELTA = 1e-5


@dataclass(frozen=True)
class Encoder:
    """A function from uint8 images (N, H, W, C) to encodings (N, *shape), and columns about its training."""

    encode: Encode
    columns: dict[str, Any]


def measure(cell: PaperCell, data: StudyData, scale: PaperScale) -> Rows:
    """Run the cell; returns a row for each classifier, fitted on one thread.

    As in the paper, the classifiers learn from the encodings of all hospitals' train parts. These are what
    `share = updates+encodings` uploads: made by the common encoder, in the clear and without a guarantee.
    """
    config = cell_config(cell, data, scale)
    dataset = resolve(config)
    encoder = _encoder(cell, config, dataset)
    train, test = encoder.encode(dataset.train.images), encoder.encode(dataset.test.images)
    measured = {
        **encoder.columns,
        **_leakage(cell, scale, dataset, encoder.encode, test),
        "train_records": len(dataset.train),
        "test_records": len(dataset.test),
    }
    rows = []
    for classifier in CLASSIFIERS:
        fitted, score = fit_and_score(
            classifier,
            train,
            np.asarray(dataset.train.labels),
            test,
            np.asarray(dataset.test.labels),
            dataset.spec.num_classes,
            cell.seed,
            threads=1,
            resnet=scale.resnet,
        )
        hits = fitted.scores(test).argmax(1) == np.asarray(dataset.test.labels)
        rows.append({"classifier": classifier, **asdict(score), **measured, "hits": packed(hits)})
    return rows


def cell_config(cell: PaperCell, data: StudyData, scale: PaperScale) -> RunConfig:
    """The configuration of the cell's run; for a baseline, only its data and architecture are used."""
    name = cell.autoencoder if cell.autoencoder != "none" else "conv"
    tuned = TUNED[name]
    records = max(1, data.records["train"] // cell.hospitals)
    return RunConfig.from_flat(
        {
            "dataset": cell.dataset,
            "data-source": "file",
            "data-file": data.file,
            "autoencoder": name,
            "encoding-size": scale.fc_size if name.startswith("fc") else 0,
            "dp-scope": cell.scope,
            "target-epsilon": cell.epsilon or 8.0,
            "target-delta": DELTA,
            "num-server-rounds": scale.rounds,
            "local-epochs": scale.local_epochs,
            "batch-size": max(1, round(records * scale.sample_rate)),
            "learning-rate": tuned.learning_rate,
            "max-grad-norm": tuned.max_grad_norm,
            "min-records": 1,
            "share": "updates+encodings",
            "evaluate-every": 0,
            "seed": cell.seed,
        }
    )


def _encoder(cell: PaperCell, config: RunConfig, dataset: Dataset) -> Encoder:
    if cell.encoding == "trained":
        return _trained(config, make_deal(dataset, config, hospital_names(cell.hospitals)))
    return Encoder(_untrained(cell, config, dataset), {"epsilon_status": "none"})


def _untrained(cell: PaperCell, config: RunConfig, dataset: Dataset) -> Encode:
    if cell.encoding == "random":
        untrained = autoencoder_of(config).encoder
        return lambda images: encode(untrained, images)
    if cell.encoding == "pca":
        found = pca_components(images_to_tensor(dataset.val.images))
        return lambda images: pca_encode(*found, images_to_tensor(images))
    if cell.encoding == "scatternet":
        return lambda images: scatter_encode(images_to_tensor(images))
    return lambda images: images_to_tensor(images).numpy()


def _trained(config: RunConfig, deal: Deal) -> Encoder:
    found = train_federated(config, deal)
    columns: dict[str, Any] = {
        "reconstruction_loss": found.measured.reconstruction_loss,
        "epsilon_status": found.basis,
    }
    if found.epsilon:
        columns |= {"epsilon": max(found.epsilon.values()), "delta": config.target_delta}
    return Encoder(lambda images: encode(found.encoder, images), columns)


def _leakage(
    cell: PaperCell, scale: PaperScale, dataset: Dataset, encoded: Encode, test: Array
) -> dict[str, Any]:
    """Cosines over all test images; SSIM of the best attacker (fitted to the server's split); its floors."""
    report = similarity(images_to_tensor(dataset.test.images), torch.from_numpy(test))
    known = _pairs(dataset.val.images, encoded(dataset.val.images), dataset.val.labels)
    rows = np.random.default_rng(0).permutation(len(dataset.test))[: scale.victims]
    victims = _pairs(dataset.test.images[rows], test[rows], dataset.test.labels[rows])
    if cell.encoding == "pixels":
        attacker, reconstructed = "none needed", victims.encodings
    else:
        best = fit_inverters(known, scale.attacker_steps, cell.seed)[0]
        attacker, reconstructed = best.name, best.decode(victims.encodings)

    def ssim(images: torch.Tensor) -> float:
        return float(image_quality(victims.images, images).ssim.mean())

    return {
        "cosine": report.cosine,
        "cosine_centred": report.cosine_centred,
        "cosine_mismatched": report.cosine_mismatched,
        "inversion_ssim": ssim(reconstructed),
        "inversion_attacker": attacker,
        "ssim_mean_image": ssim(mean_images(known.images, len(victims))),
        "ssim_class_mean": ssim(class_mean_images(known.images, known.labels, victims.labels)),
    }


def _pairs(images: Array, encodings: Array, labels: Array) -> Pairs:
    return Pairs(images_to_tensor(images), torch.from_numpy(encodings), torch.from_numpy(np.array(labels)))
