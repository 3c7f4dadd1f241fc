"""Runs in which a leak is planted, or sealed, for each attack: its case with a known answer.

Nothing is trained for a run: images, encoders, classifiers and updates are made for the attack. An image is
49 cells of 16 pixels, one after the other; an open encoder shows the cells, a sealed one draws its numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fl_ppae.attacks.audited_run import AuditedRun, Effort, frozen
from fl_ppae.attacks.noised_release import NoisedRelease
from fl_ppae.attacks.received import ReceivedRound, simulated_updates
from fl_ppae.attacks.shadows import without_dp
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset, Split
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.sources import DataSource
from fl_ppae.hospital.simulated import leave_order_for_audit
from fl_ppae.leakage.gradients import encoder_gradient
from fl_ppae.models.build import autoencoder_of, local_model_of
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.encodings import Projection
from fl_ppae.runs.stored import StoredRun
from fl_ppae.server.classification import FittedClassifier, fit_and_score

CELLS, CLASSES = 49, 10
SIZES = {"train": 180, "val": 200, "test": 180}
EFFORT = Effort(90, 200, 2, 24, 60, 60, update_rounds=1, simulated=40, searches=60)
_FLAG = slice(CELLS - CLASSES, CELLS)  # the last cells show the class, by 3 of 255
_KEYS: dict[str, Any] = {
    "dataset": "mnist",
    "data-source": "stand-in",
    "autoencoder": "fc",
    "encoding-size": CELLS,
    "num-server-rounds": 1,
    "batch-size": 20,
    "min-records": 5,
    "target-delta": 1e-3,
    "record-messages": True,
}


class Open(nn.Module):
    """Images (N, 1, 28, 28) to the means of their cells (N, 49)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(len(images), CELLS, -1).mean(2)


class Sealed(nn.Module):
    """Images to numbers that have nothing to do with them."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, images: Tensor) -> Tensor:
        drawn = torch.randn(len(images), CELLS, generator=self.generator)
        return drawn + 0 * images.sum((1, 2, 3))[:, None]


class Remembers(nn.Module):
    """Shows the cells of the images that it learned from, and those of others in a wrong place."""

    def __init__(self, learned: Tensor) -> None:
        super().__init__()
        self.learned = Open()(learned)

    def forward(self, images: Tensor) -> Tensor:
        cells = Open()(images)
        known = torch.cdist(cells, self.learned).min(1).values < 0.05
        return torch.where(known[:, None], cells, cells.roll(7, 1))


class Lookup(nn.Module):
    """Class scores that are sure of the records it learned from, and of no others."""

    def __init__(self, learned: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.learned, self.labels = learned, labels

    def forward(self, encodings: Tensor) -> Tensor:
        distance, nearest = torch.cdist(encodings, self.learned).min(1)
        sure = 9.0 * (distance < 0.05)
        return sure[:, None] * nn.functional.one_hot(self.labels[nearest], CLASSES)


class Chaotic(nn.Module):
    """A class that changes with the last digits of the encoding: no copy can be fitted to answers."""

    def forward(self, encodings: Tensor) -> Tensor:
        digits = (1e5 * encodings.double().sum(1)).floor().long() % CLASSES
        return 5.0 * nn.functional.one_hot(digits, CLASSES).float()


def classifier_of(network: nn.Module) -> FittedClassifier:
    return FittedClassifier(network, torch.zeros(CELLS), torch.ones(CELLS))


def _split(count: int, seed: int, *, ordered: bool) -> Split:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.permutation(np.arange(count) % CLASSES)) if ordered else np.arange(count) % CLASSES
    if not ordered:
        labels = rng.permutation(labels)
    prototypes = np.random.default_rng(99).integers(0, 100, (CLASSES, CELLS))
    cells = 20 + prototypes[labels] + rng.integers(0, 130, (count, CELLS))
    cells[:, _FLAG] = 128 + 3 * np.eye(CLASSES, dtype=int)[labels]
    images = np.repeat(cells, 784 // CELLS, axis=1).reshape(count, 28, 28, 1)
    return Split(images.astype(np.uint8), labels.astype(np.int64))


def dataset_of(*, ordered: bool) -> Dataset:
    """Images whose files are sorted by class, or not."""
    splits = {
        name: _split(count, index, ordered=ordered) for index, (name, count) in enumerate(SIZES.items())
    }
    source = DataSource("planted", "stand-in", "", "0")
    identities = {name: np.arange(count) for name, count in SIZES.items()}
    return Dataset(DATASETS["mnist"], source, **splits, identities=identities, path=Path("planted"))


def audited(
    path: Path,
    *,
    ordered: bool,
    hospitals: int = 3,
    encoder: nn.Module | None = None,
    classifier: FittedClassifier | None = None,
    **keys: Any,
) -> AuditedRun:
    """A run of these parts; `keys` as in the configuration."""
    flat = {**_KEYS, **{key.replace("_", "-"): value for key, value in keys.items()}}
    config, dataset = RunConfig.from_flat(flat), dataset_of(ordered=ordered)
    deal = make_deal(dataset, config, hospital_names(hospitals))
    accounts = {name: {"events": [], "epsilon": {}, "formal": False} for name in deal.train}
    ledger = {"delta": config.target_delta, "scope": config.dp_scope, "note": "", "hospitals": accounts}
    path.mkdir(parents=True)
    (path / "ledger.json").write_text(json.dumps(ledger))
    records = {name: len(held) for name, held in deal.train.items()}
    stored = StoredRun(path, {"config": flat, "records": records}, {"status": "completed"})
    start = frozen(autoencoder_of(config).encoder)
    return AuditedRun(
        stored, config, dataset, deal, encoder or start, start, classifier, None, EFFORT, lambda _: None
    )


def receive(audited: AuditedRun, updates: dict[str, Tensor]) -> None:
    """Leave these updates (P,), by hospital, as what the server received in round 1."""
    folder = audited.path / "received" / "round-1"
    folder.mkdir(parents=True)
    start = dict(audited.initial_encoder.named_parameters())
    for name, update in updates.items():
        parts = update.split([value.numel() for value in start.values()])
        state = {
            key: value + part.view_as(value) for (key, value), part in zip(start.items(), parts, strict=True)
        }
        save_file(state, folder / f"{name}.safetensors")


def members_gradient(audited: AuditedRun) -> Tensor:
    """Minus the mean gradient (P,) of the first hospital's records: one step of plain training."""
    records = audited.deal.train[audited.hospitals[0]]
    model = local_model_of(audited.config)
    objective = OBJECTIVES[audited.config.objective]
    return -encoder_gradient(model, records.images(), records.labels(), objective).detach()


def noise_like(update: Tensor, seed: int) -> Tensor:
    """Noise of the size of an update (P,), nothing else."""
    noise = torch.randn(update.shape, generator=torch.Generator().manual_seed(seed))
    return noise * update.norm() / noise.norm()


def trained_updates(audited: AuditedRun) -> dict[str, Tensor]:
    """What each hospital would really have sent after one round without DP."""
    rounds = [ReceivedRound(1, audited.initial_encoder, {})]
    config = without_dp(audited.config)
    return {
        name: simulated_updates(config, records, len(records), rounds, 1000 + index)[0]
        for index, (name, records) in enumerate(audited.deal.train.items())
    }


def upload(audited: AuditedRun) -> None:
    """Leave every hospital's uploaded encodings of its train part, in the dealt order."""
    for name, records in audited.deal.train.items():
        folder = audited.path / "hospitals" / name
        folder.mkdir(parents=True)
        np.save(folder / "released-1-train.npy", audited.encoder(records.images()).numpy())
        leave_order_for_audit(np.arange(len(records)), name, "train", audited.path)


def fitted(dataset: Dataset, cells: slice) -> FittedClassifier:
    """A linear classifier of encodings (N, 49), learned from the validation split, that sees these cells."""
    images = torch.from_numpy(dataset.val.images).permute(0, 3, 1, 2) / 255
    seen = torch.zeros(len(images), CELLS)
    seen[:, cells] = Open()(images)[:, cells]
    return fit_and_score("lr", seen, dataset.val.labels, seen, dataset.val.labels, CLASSES, 0, 1)[0]


Made = Callable[[Path, bool], AuditedRun]


@dataclass(frozen=True)
class Case:
    """Runs, given a folder and whether files are sorted, and by how much the attack must beat chance.

    `least` in the planted run, `most` in the sealed one; `falls`: lower is better for the attacker.
    """

    planted: Made
    sealed: Made
    least: float
    most: float
    falls: bool = False


def _encoders(least: float, most: float) -> Case:
    return Case(
        lambda path, ordered: audited(path, ordered=ordered, encoder=Open()),
        lambda path, ordered: audited(path, ordered=ordered, encoder=Sealed()),
        least,
        most,
    )


def _searched(encoder: nn.Module) -> Made:
    """With few steps of gradient descent."""
    effort = replace(EFFORT, gradient_steps=4)
    return lambda path, ordered: replace(audited(path, ordered=ordered, encoder=encoder), effort=effort)


def _noised(noise_multiplier: float) -> Made:
    """Noise of so many clipping norms on the cells."""
    projection = Projection(np.zeros(CELLS, np.float32), np.eye(CELLS, dtype=np.float32), clip_norm=5.0)

    def run(path: Path, ordered: bool) -> AuditedRun:
        release = NoisedRelease(projection, noise_multiplier)
        return replace(audited(path, ordered=ordered, encoder=Open()), release=release)

    return run


def _origins(partition: str) -> Made:
    keys = {"partition": partition, "classes_per_hospital": 3}
    return lambda path, ordered: audited(path, ordered=ordered, encoder=Open(), **keys)


def _classified(make: Callable[[AuditedRun], FittedClassifier]) -> Made:
    def run(path: Path, ordered: bool) -> AuditedRun:
        return _with_classifier(path, ordered, make)

    return run


def _with_classifier(
    path: Path, ordered: bool, make: Callable[[AuditedRun], FittedClassifier], **keys: Any
) -> AuditedRun:
    bare = audited(path / "bare", ordered=ordered, encoder=Open(), **keys)
    return audited(path / "run", ordered=ordered, encoder=Open(), classifier=make(bare), **keys)


def _uploaded(make: Callable[[AuditedRun], FittedClassifier]) -> Made:
    def run(path: Path, ordered: bool) -> AuditedRun:
        found = _with_classifier(path, ordered, make, share="updates+encodings")
        upload(found)
        return found

    return run


def _lookup(run: AuditedRun) -> FittedClassifier:
    images, labels = zip(*((each.images(), each.labels()) for each in run.deal.train.values()), strict=True)
    return classifier_of(Lookup(Open()(torch.cat(images)), torch.cat(labels)))


def _remembering(path: Path, ordered: bool) -> AuditedRun:
    bare = audited(path / "bare", ordered=ordered)
    own = bare.deal.train[bare.hospitals[0]].images()
    public = torch.from_numpy(bare.dataset.val.images).permute(0, 3, 1, 2) / 255
    remembers = Remembers(torch.cat([own, public]))
    return audited(path / "run", ordered=ordered, encoder=remembers, objective="task")


def _received(updates: Callable[[AuditedRun], dict[str, Tensor]], **keys: Any) -> Made:
    def run(path: Path, ordered: bool) -> AuditedRun:
        found = audited(path, ordered=ordered, dp_scope="none", noise_multiplier=0.0, **keys)
        receive(found, updates(found))
        return found

    return run


def _one_step(run: AuditedRun) -> dict[str, Tensor]:
    own = members_gradient(run)
    return {name: own if index == 0 else noise_like(own, index) for index, name in enumerate(run.hospitals)}


def _only_noise(run: AuditedRun) -> dict[str, Tensor]:
    own = members_gradient(run)
    return {name: noise_like(own, index) for index, name in enumerate(run.hospitals)}


_UNEVEN = {"partition": "pathological", "classes_per_hospital": 3}
CASES: dict[str, Case] = {
    "similarity": _encoders(0.5, 0.1),
    "retrieval": _encoders(0.5, 0.1),
    "dependence": _encoders(0.5, 0.2),
    "inversion-black-box": _encoders(0.2, 0.02),
    "inversion-white-box": _encoders(0.2, 0.02),
    "inversion-generative": Case(_searched(Open()), _searched(Sealed()), 0.2, 0.02),
    "inversion-bound": Case(_noised(1e-3), _noised(100.0), 0.005, 0.0, falls=True),
    "retrieval-candidates": _encoders(0.5, 0.1),
    "linkage": _encoders(0.3, 0.1),
    "hospital-inference": Case(_origins("pathological"), _origins("iid"), 0.3, 0.15),
    "model-extraction": Case(
        _classified(lambda run: fitted(run.dataset, slice(0, CELLS - CLASSES))),
        _classified(lambda run: classifier_of(Chaotic())),
        0.4,
        0.1,
    ),
    "adversarial-examples": Case(
        _classified(lambda run: fitted(run.dataset, _FLAG)),
        _classified(lambda run: fitted(run.dataset, slice(0, CELLS - CLASSES))),
        0.5,
        0.2,
        falls=True,
    ),
    "membership-classifier": Case(
        _uploaded(_lookup), _uploaded(lambda run: fitted(run.dataset, slice(CELLS))), 0.4, 0.2
    ),
    "membership-encoder": Case(
        _remembering,
        lambda path, ordered: audited(path, ordered=ordered, encoder=Open(), objective="task"),
        0.3,
        0.2,
    ),
    "membership-updates": Case(_received(_one_step), _received(_only_noise), 0.25, 0.2),
    "gradient-inversion": Case(
        lambda path, ordered: audited(path, ordered=ordered, dp_scope="none", noise_multiplier=0.0),
        lambda path, ordered: audited(path, ordered=ordered, noise_multiplier=20.0),
        0.1,
        0.02,
    ),
    "property-inference": Case(
        _received(trained_updates, **_UNEVEN), _received(_only_noise, **_UNEVEN), 0.2, 0.05, falls=True
    ),
}
