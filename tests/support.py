"""Helpers for tests of several packages: a small configuration, a tiny data set, a finished run."""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_ppae import server_app
from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords
from fl_ppae.files import read_json
from fl_ppae.leakage.reconstruction import probe_reconstruction_loss
from fl_ppae.server import evaluation as server_evaluation
from fl_ppae.server import session
from fl_ppae.server.metrics import ClassifierScore

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
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
NO_SCORE = ClassifierScore(0, 0, 0, 0, (0,), 0)


def real_data(name: str) -> Path:
    """The path of a real data file; skips the test if it is missing, and says which one."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


@dataclass(frozen=True)
class Run:
    """A finished run, read from its directory."""

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


def quick_runs(patch: pytest.MonkeyPatch) -> None:
    """Let runs fit the server's probe decoder in 5 steps, not 300, and use one thread."""
    quick = partial(probe_reconstruction_loss, steps=5)
    patch.setattr(server_evaluation, "probe_reconstruction_loss", quick)
    patch.setattr(server_evaluation, "server_threads", lambda: 1)


def without_pages(patch: pytest.MonkeyPatch) -> None:
    """Let runs draw no figure and write no `report.html`: four fifths of the time of a run this small."""
    patch.setattr(session, "plot_label_distributions", lambda *_, **__: None)
    patch.setattr(server_app, "_draw_figures", lambda *_: None)
    patch.setattr(server_app, "_write_report", lambda *_: None)


def write_npz(path: Path, records: int = 333, seed: int = 0, test_records: int = 60) -> Path:
    """Write `records` learnable 28x28 images of 10 classes for train; a tenth becomes the server's split."""
    rng = np.random.default_rng(seed)
    prototypes = np.random.default_rng(7).integers(0, 200, (10, 28, 28))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 10
        drawn = prototypes[labels] + rng.integers(0, 55, (count, 28, 28))
        return drawn.astype(np.uint8), labels

    (x_train, y_train), (x_test, y_test) = images(records), images(test_records)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def simulated_nodes(count: int) -> list[dict[str, Any]]:
    """The node configurations of `count` simulated hospitals."""
    return [{"partition-id": index, "num-partitions": count} for index in range(count)]


def records_of(images: np.ndarray, labels: np.ndarray) -> HospitalRecords:
    """A hospital's records from images (N, H, W, C) uint8 and labels (N,)."""
    return HospitalRecords(Split(images, labels.astype(np.int64)), np.arange(len(labels)))
