"""What the tests of accounting, training and federation share: an own home, a tiny data set, a run."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fl_ppae import client_app, server_app, server_evaluation
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Split
from fl_ppae.data.hospital import HospitalRecords
from fl_ppae.evaluation import probe_reconstruction_loss
from fl_ppae.files import read_json
from fl_ppae.in_process import InProcessGrid

SMALL: dict[str, Any] = {
    "dataset": "mnist",
    "data-source": "file",
    "autoencoder": "fc",
    "encoding-size": 16,
    "num-server-rounds": 2,
    "batch-size": 25,
    "min-records": 10,
    "target-delta": 1e-3,
    "noise-multiplier": 1.5,
    "evaluate-every": 0,
}


torch.set_num_threads(1)  # networks this small are only slowed by more


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches, runs and ledgers of a test never touch the user's."""
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))


def write_npz(path: Path, records: int = 333, seed: int = 0) -> Path:
    """`records` learnable 28x28 images of 10 classes in `x_train`; a tenth becomes the server's split."""
    rng = np.random.default_rng(seed)
    prototypes = np.random.default_rng(7).integers(0, 200, (10, 28, 28))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 10
        drawn = prototypes[labels] + rng.integers(0, 55, (count, 28, 28))
        return drawn.astype(np.uint8), labels

    (x_train, y_train), (x_test, y_test) = images(records), images(60)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "tiny.npz")


@pytest.fixture
def small(data_file: Path) -> Callable[..., RunConfig]:
    """`small(target_epsilon=3.0)`: a configuration that runs in a second, with what is named changed."""

    def build(**changes: Any) -> RunConfig:
        kebab = {key.replace("_", "-"): value for key, value in changes.items()}
        return RunConfig.from_flat({**SMALL, "data-file": str(data_file), **kebab})

    return build


@dataclass(frozen=True)
class Run:
    """A finished run, read back from its own files."""

    path: Path

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.path / "summary.json")

    @property
    def ledger(self) -> dict[str, Any]:
        return read_json(self.path / "ledger.json")

    def rows(self, table: str) -> list[dict[str, str]]:
        with (self.path / table).open(newline="") as file:
            return list(csv.DictReader(file))


def simulated_nodes(count: int) -> list[dict[str, Any]]:
    return [{"partition-id": index, "num-partitions": count} for index in range(count)]


@pytest.fixture
def federate(
    tmp_path: Path, small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Run]:
    """`federate("name", share="encodings", nodes=...)`: a whole run in this process; 3 hospitals by default.

    `grid` is a class to use instead of `InProcessGrid`. The server's probe decoder takes 5 steps, not 300.
    """
    monkeypatch.setattr(
        server_evaluation, "probe_reconstruction_loss", partial(probe_reconstruction_loss, steps=5)
    )
    monkeypatch.setattr(server_evaluation, "server_threads", lambda: 1)

    def start(
        name: str,
        *,
        nodes: Sequence[Mapping[str, Any]] | None = None,
        grid: Callable[..., InProcessGrid] = InProcessGrid,
        **changes: Any,
    ) -> Run:
        config = small(output_dir=str(tmp_path / name), **changes)
        hospitals = grid(client_app.app, config.to_flat(), nodes or simulated_nodes(3))
        return Run(server_app.serve(hospitals, config, "tiny"))

    return start


def records_of(images: np.ndarray, labels: np.ndarray) -> HospitalRecords:
    """A hospital's records, of images (N, H, W, C) uint8 and labels (N,)."""
    return HospitalRecords(Split(images, labels.astype(np.int64)), np.arange(len(labels)))
