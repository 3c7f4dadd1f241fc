"""Whether joining is worth it: what a hospital and the server reach without the federation. Simulations only.

All networks are those of `models.residual`, trained without privacy. Nothing of it leaves a hospital: it is
the simulator that has all records, and a real hospital computes its own part alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.checksums import md5_of
from fl_ppae.data.deal import Deal
from fl_ppae.data.records import HospitalRecords, JoinedRecords
from fl_ppae.hardware import device_of, has_bfloat16, limited_threads, server_threads
from fl_ppae.leakage.intervals import t_mean
from fl_ppae.models import augment, plain_training, residual
from fl_ppae.models.build import public_seed
from fl_ppae.models.plain_training import PlainTraining, class_probabilities, train_plainly
from fl_ppae.models.residual import residual_classifier
from fl_ppae.runs.kept import State, digest, kept
from fl_ppae.server.evaluation import Recognised
from fl_ppae.steps import step

MOST_HOSPITALS = 3
_TOLD_EVERY = 10
_HITS = "hits"
_CODE: tuple[ModuleType, ...] = (augment, plain_training, residual)  # a change to it trains anew


@dataclass(frozen=True)
class Budget:
    """Steps of a training: `passes` over its records, but at least `fewest` and at most `most` steps."""

    passes: float
    fewest: int
    most: int

    def training(self, records: int, dataset: Dataset, rate: float) -> PlainTraining:
        """The training of so many records of `dataset`."""
        steps = math.ceil(self.passes * records / PlainTraining.batch)
        return PlainTraining(max(self.fewest, min(self.most, steps)), dataset.spec.any_way_up, rate=rate)


_SERVER = Budget(passes=36, fewest=50, most=500)
_HOSPITAL = Budget(passes=4, fewest=50, most=100)
_POOLED = Budget(passes=3, fewest=50, most=250)
_RATE = 4e-3
_TUNING_RATE = 2e-3  # from the server's network


@dataclass(frozen=True)
class _Reached:
    """A trained network: its weights, which test images it recognises (N,), and the name of what it is."""

    state: State
    hits: np.ndarray
    identity: Mapping[str, Any]


def worth_joining(config: RunConfig, deal: Deal, recognised: Recognised) -> dict[str, Any]:
    """What a hospital gains by joining: the federation's accuracy minus the better of two others.

    These are the accuracy of the hospital alone and of the server alone, on the same images of the official
    test split. A hospital alone tunes the server's network on its own and the public records. At most
    `MOST_HOSPITALS` are measured: the smallest, the median and the largest. `pooled` is the same network
    trained on all records at once.

    `recognised`: which test images the federation's classifier recognises.
    """
    public = HospitalRecords(deal.dataset.val, np.arange(len(deal.dataset.val)))
    server = _trained(config, deal.dataset, "the server alone", (public,), _SERVER) if len(public) else None
    alone = {
        name: _trained(config, deal.dataset, f"{name} alone", (deal.train[name], public), _HOSPITAL, server)
        for name in measured_hospitals({name: len(records) for name, records in deal.train.items()})
    }
    everything = (*deal.train.values(), public)
    pooled = _trained(config, deal.dataset, "all records pooled", everything, _POOLED, server)
    rows = recognised.rows
    found = gains(
        recognised.hits,
        {name: reached.hits[rows] for name, reached in alone.items()},
        None if server is None else server.hits[rows],
    )
    return {**found, "pooled": float(pooled.hits[rows].mean()), "training": config.worth_joining}


def measured_hospitals(records: Mapping[str, int]) -> list[str]:
    """The names of the smallest, the median and the largest hospital, by their numbers of records."""
    by_size = sorted(records, key=lambda name: records[name])
    if len(by_size) <= MOST_HOSPITALS:
        return by_size
    return [by_size[0], by_size[len(by_size) // 2], by_size[-1]]


def gains(
    federation: np.ndarray, alone: Mapping[str, np.ndarray], server: np.ndarray | None
) -> dict[str, Any]:
    """Gains over the better of alone and server, from who recognises which test image (N,).

    Intervals are over test images, paired; that of the worst hospital holds for all hospitals together. They
    don't cover other seeds.
    """
    better = {
        name: own if server is None or own.mean() >= server.mean() else server for name, own in alone.items()
    }
    gained = {name: float(federation.mean() - best.mean()) for name, best in better.items()}
    worst = min(gained, key=lambda name: gained[name])
    mean = t_mean(federation - np.mean(list(better.values()), axis=0))
    least = t_mean(federation - better[worst].astype(float), among=len(better))
    return {
        "mean_gain": mean.value,
        "worst_gain": gained[worst],
        "worst_hospital": worst,
        "gain": gained,
        "interval": {"mean_gain": [mean.low, mean.high], "worst_gain": [least.low, least.high]},
        "accuracy": float(federation.mean()),
        "alone": {name: float(own.mean()) for name, own in alone.items()},
        "server_alone": None if server is None else float(server.mean()),
        "images": len(federation),
    }


def _trained(
    config: RunConfig,
    dataset: Dataset,
    what: str,
    holders: Sequence[HospitalRecords],
    budget: Budget,
    start: _Reached | None = None,
) -> _Reached:
    """The network trained on what all `holders` have, from `start` or else random weights; kept on disk."""
    device, seed = device_of(config.device), public_seed(config)
    records = JoinedRecords(tuple(holders))
    training = budget.training(len(records), dataset, _RATE if start is None else _TUNING_RATE)
    identity = {
        "data": dataset.path.name,
        "public": digest(dataset.val.images, dataset.val.labels),
        "dealt": [[digest(one.indices), repr(one.shift)] for one in holders if one.split is dataset.train],
        "training": asdict(training),
        "start": None if start is None else dict(start.identity),
        "seed": seed,
        "code": md5_of("".join(map(inspect.getsource, _CODE))),
        "bfloat16": has_bfloat16(device),
    }

    def told(done: int) -> None:
        if done % _TOLD_EVERY == 0:
            step(f"{what}, step {done}/{training.steps}")

    def train() -> State:
        network = residual_classifier(dataset.spec.image_shape, dataset.spec.num_classes, seed)
        if start is not None:
            network.load_state_dict({name: start.state[name] for name in network.state_dict()})
        with limited_threads(server_threads()):
            trained = train_plainly(network, records, training, seed, device, told)
            step(f"{what}, tested")
            tested = HospitalRecords(dataset.test, np.arange(len(dataset.test)))
            likely = class_probabilities(trained, tested, any_way_up=False, device=device)
        hits = torch.from_numpy(likely.argmax(1) == dataset.test.labels)
        return {**trained.state_dict(), _HITS: hits}

    state = kept("worth_joining", "network", identity, train)
    return _Reached(state, state[_HITS].numpy(), identity)
