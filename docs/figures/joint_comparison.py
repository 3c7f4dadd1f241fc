"""Accuracy with joint noise, with own noise and with local training, paired by seed. Prints a Markdown table.

    python docs/figures/joint_comparison.py FOLDER_OF_bloodmnist.npz [--tune]

20 hospitals, 16 of them honest, train a linear head on fixed features (`autoencoder = "scatter"`), and the
head is the classifier: no public image, nothing plain. Each hospital's clipped sum and noise, the server's
Adam and the accountant are those of a run; masks, which cancel in the sum, are left out. `--tune` prints each
setting's accuracy on the official validation split instead, by which `SETTINGS` were chosen, at a seed that
the comparison does not use.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.hospital.fixed_codes import Codes
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.training import Moments, round_terms, train_round
from fl_ppae.leakage.intervals import t_mean
from fl_ppae.models.build import local_model_of
from fl_ppae.models.encoding import encode
from fl_ppae.models.objectives import LocalModel
from fl_ppae.privacy.plan import plan_hospital, planned_terms
from fl_ppae.privacy.randomness import streams
from fl_ppae.server.start import common_start
from strategies.server_optimiser import ServerAdam

HOSPITALS, HONEST, SEEDS, TUNING_SEED = 20, 16, (42, 43, 44, 45, 46), 7
COMMON = {
    "data-source": "medmnist",
    "autoencoder": "scatter",
    "trains": "head",
    "classifier": "head",
    "public-records": 0,
    "max-grad-norm": 2.0,
    "sample-rate": 1.0,
    "num-server-rounds": 50,
    "honest-hospitals": HONEST,
    "min-hospitals": 18,
    "precision": "float32",
}
OWN = {"noise": "own"}
LOCAL = {**OWN, "local_steps": 0, "sample_rate": 0.0, "batch_size": 128, "num_server_rounds": 5}


@dataclass(frozen=True)
class Arm:
    """A row of the table: how its keys differ, and its learning rate."""

    epsilon: float
    learning_rate: float
    keys: Mapping[str, object]

    def config(self, data_root: str, seed: int) -> RunConfig:
        """Its run. Runs have no local training of a head alone; here it is the same training, averaged."""
        common = find("bloodmnist_joint").config({**COMMON, "data-root": data_root, "seed": seed})
        changes = {**self.keys, "target_epsilon": self.epsilon, "learning_rate": self.learning_rate}
        return common.model_copy(update=changes)


SETTINGS = {
    "joint noise, epsilon 2": Arm(2.0, 0.1, {}),
    "own noise, epsilon 8": Arm(8.0, 0.1, OWN),
    "own noise, epsilon 2": Arm(2.0, 0.1, OWN),
    "local training, own noise, epsilon 8": Arm(8.0, 0.3, LOCAL),
    "local training, own noise, epsilon 2": Arm(2.0, 0.3, LOCAL),
}
RATES = {1: (0.1, 0.3), 0: (0.03, 0.1, 0.3, 1.0)}  # tried, by local-steps


def main() -> None:
    """Tune, or compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_root", type=os.path.abspath)
    parser.add_argument("--tune", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tune:
        for name, arm in SETTINGS.items():
            for rate in RATES[arm.config(arguments.data_root, 0).local_steps]:
                config = replace(arm, learning_rate=rate).config(arguments.data_root, TUNING_SEED)
                print(f"{name}, learning rate {rate}: {hits(config, 'val').mean():.4f}", flush=True)
        return
    found: dict[str, list[np.ndarray]] = {name: [] for name in SETTINGS}
    for seed, (name, arm) in product(SEEDS, SETTINGS.items()):
        found[name].append(hits(arm.config(arguments.data_root, seed), "test"))
        print(f"{seed}, {name}: {found[name][-1].mean():.4f}", flush=True)
    print(table({name: np.array(rows) for name, rows in found.items()}))


def table(found: Mapping[str, np.ndarray]) -> str:
    """A Markdown row for each arm, from which test image each seed recognised, (seeds, N) bool."""
    first = found[next(iter(found))].astype(float)
    lines = ["| | accuracy | first row minus this: over seeds | over test images |", "|---|---|---|---|"]
    for name, rows in found.items():
        each = ", ".join(f"{row.mean():.3f}" for row in rows)
        seeds, images = (t_mean((first - rows).mean(axis=axis)) for axis in (1, 0))
        differences = " | ".join(
            f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in (seeds, images)
        )
        lines.append(f"| {name} | {rows.mean():.3f} ({each}) | {differences} |")
    return "\n".join(lines)


def hits(config: RunConfig, split: str) -> np.ndarray:
    """Which images of the official `split` the common head recognises after all rounds, (N,) bool."""
    dataset = every_image(config)
    model = common_start(config, dataset)
    features = {name: encoded(config, name) for name in ("train", split)}
    deal = make_deal(dataset, config, hospital_names(HOSPITALS))
    hospitals = [
        Codes(features["train"][records.indices], records.labels()) for records in deal.train.values()
    ]
    trained = train(config, model.partner, hospitals)
    with torch.inference_mode():
        guessed = trained(features[split]).argmax(1).numpy()
    found: np.ndarray = guessed == np.ravel(getattr(dataset, split).labels)
    return found


def train(config: RunConfig, head: nn.Module, hospitals: list[Codes]) -> nn.Module:
    """The head after all rounds: one step of the server's Adam each, or local passes and their average."""
    adam, records = ServerAdam(config.learning_rate), sum(map(len, hospitals))
    plans = [plan_hospital(f"hospital-{index}", len(own), config) for index, own in enumerate(hospitals)]
    terms = [round_terms(planned_terms(plan, config, run="comparison"), config) for plan in plans]
    moments: list[Moments] = [{} for _ in hospitals]
    for server_round in range(1, config.num_server_rounds + 1):
        weights = head.state_dict()
        mean = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in weights.items()}
        for index, own in enumerate(hospitals):
            model = LocalModel(nn.Identity(), copy.deepcopy(head))
            drawn = streams(config.seed, index, server_round)
            if config.local_steps:
                noised, _ = one_step(model, own, terms[index], drawn)
                part = dict(zip(mean, noised, strict=True))
                weight = 1 / (terms[index].sample_rate * records)
            else:
                moments[index], _ = train_round(model, own, terms[index], drawn, moments[index])
                part, weight = model.partner.state_dict(), len(own) / records
            for name in mean:
                mean[name] += weight * part[name].double()
        following = {name: value.numpy() for name, value in mean.items()}
        if config.local_steps:
            following = adam.step({name: value.numpy() for name, value in weights.items()}, following)
        head.load_state_dict({name: torch.from_numpy(value).float() for name, value in following.items()})
    return head


@cache
def _encoded(data_root: str, split: str) -> Tensor:
    config = SETTINGS["joint noise, epsilon 2"].config(data_root, 0)
    images = getattr(every_image(config), split).images
    return torch.from_numpy(encode(local_model_of(config).encoder, images))


def encoded(config: RunConfig, split: str) -> Tensor:
    """The features (N, k) of a split; the encoder has no weights, so they are the same for every seed."""
    return _encoded(config.data_root, split)


def every_image(config: RunConfig) -> Dataset:
    """The official file, with its whole validation split."""
    return resolve(config.model_copy(update={"public_records": -1}))


if __name__ == "__main__":
    main()
