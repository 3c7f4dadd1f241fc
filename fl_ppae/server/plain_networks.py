"""Networks that a simulator or server trains without any privacy, kept on disk for later runs."""

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
from fl_ppae.data.records import HospitalRecords, JoinedRecords
from fl_ppae.hardware import device_of, has_bfloat16, limited_threads, server_threads
from fl_ppae.models import augment, autoencoders, layers, objectives, plain_training, residual
from fl_ppae.models.build import local_model_of, own_identity, public_seed
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.models.plain_training import PlainTraining, class_probabilities, train_plainly
from fl_ppae.runs.kept import State, digest, kept
from fl_ppae.steps import step

_TOLD_EVERY = 10
_LIKELY = "likely"
# A change to one of them trains anew.
_CODE: tuple[ModuleType, ...] = (augment, autoencoders, layers, objectives, plain_training, residual)


@dataclass(frozen=True)
class Budget:
    """Steps of a training: `passes` over its records, but at least `fewest` and at most `most` steps.

    `batch`: records in a step. `smoothing`: as of `PlainTraining`.
    """

    passes: float
    fewest: int
    most: int
    batch: int = PlainTraining.batch
    smoothing: float = PlainTraining.smoothing

    def training(self, records: int, dataset: Dataset, rate: float) -> PlainTraining:
        """The training of so many records of `dataset`."""
        steps = max(self.fewest, min(self.most, math.ceil(self.passes * records / self.batch)))
        return PlainTraining(steps, dataset.spec.any_way_up, self.batch, rate, self.smoothing)


SERVER = Budget(passes=36, fewest=250, most=500)
RATE = 4e-3
TUNING_RATE = 2e-3  # from another network


@dataclass(frozen=True)
class Reached:
    """A trained network.

    Attributes:
        state: its weights.
        likely: class probabilities (N, K) of the test images; empty without classes to recognise.
        hits: (N,), which test images it recognises; empty without classes.
        identity: the name of what it is.
    """

    state: State
    likely: np.ndarray
    hits: np.ndarray
    identity: Mapping[str, Any]


def network_config(config: RunConfig) -> RunConfig:
    """`config` with the network by which a federation is judged: residual, to 16 numbers, for the task."""
    return config.model_copy(
        update={"autoencoder": "residual", "encoder": "", "encoding_size": 0, "objective": "task"}
    )


def public_network(config: RunConfig, dataset: Dataset) -> Reached:
    """This run's encoder and partner, trained on the server's public records alone."""
    public = HospitalRecords(dataset.val, np.arange(len(dataset.val)))
    return trained(config, dataset, "the server alone", (public,), SERVER)


def trained(
    config: RunConfig,
    dataset: Dataset,
    what: str,
    holders: Sequence[HospitalRecords],
    budget: Budget,
    start: Reached | None = None,
) -> Reached:
    """This run's network trained on what all `holders` have, from `start` or else random weights."""
    device, seed, objective = device_of(config.device), public_seed(config), OBJECTIVES[config.objective]
    records = JoinedRecords(tuple(holders))
    training = budget.training(len(records), dataset, RATE if start is None else TUNING_RATE)
    identity = {
        "data": dataset.path.name,
        "public": digest(dataset.val.images, dataset.val.labels),
        "dealt": [[digest(one.indices), repr(one.shift)] for one in holders if one.split is dataset.train],
        "network": [config.autoencoder, config.encoding_size, config.objective, *own_identity(config)],
        "training": asdict(training),
        "views": config.views,
        "start": None if start is None else dict(start.identity),
        "seed": seed,
        "code": md5_of("".join(map(inspect.getsource, _CODE))),
        "bfloat16": has_bfloat16(device),
    }

    def told(done: int) -> None:
        if done % _TOLD_EVERY == 0:
            step(f"{what}, step {done}/{training.steps}")

    def train() -> State:
        network = local_model_of(config)
        if start is not None:
            network.load_state_dict({name: start.state[name] for name in network.state_dict()})
        with limited_threads(server_threads()):
            learned = train_plainly(network, records, training, seed, objective.loss, device, told)
            likely = np.empty((0, 0), np.float32)
            if objective.learns_labels:
                step(f"{what}, tested")
                tested = HospitalRecords(dataset.test, np.arange(len(dataset.test)))
                likely = class_probabilities(learned, tested, any_way_up=config.views > 1, device=device)
        return {**learned.state_dict(), _LIKELY: torch.from_numpy(likely)}

    state = kept("worth_joining", "network", identity, train)
    likely = state[_LIKELY].numpy()
    hits = likely.argmax(1) == dataset.test.labels if len(likely) else np.empty(0, bool)
    return Reached(state, likely, hits, identity)
