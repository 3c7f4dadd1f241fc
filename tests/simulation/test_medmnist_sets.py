"""Whole runs on small stand-ins of MedMNIST's sets: every task, and larger images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Run, simulated_nodes

from fl_ppae.data import standin
from fl_ppae.data.medmnist_sets import MEDMNIST
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError

SETS = [spec.name for spec in MEDMNIST]
ONE_OF_EACH_TASK = ("chestmnist", "retinamnist", "breastmnist", "organamnist")


@pytest.fixture
def on_stand_in(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`on_stand_in("chestmnist", share=...)`: two hospitals with 60 records each of a small stand-in."""
    monkeypatch.setattr(standin, "_COUNTS", {"train": 120, "val": 60, "test": 60})
    monkeypatch.setattr(standin, "_FEWER", 1)

    def start(dataset: str, **keys: Any) -> Run:
        source = {"dataset": dataset, "data_source": "stand-in", "data_file": ""}
        return federate(dataset, nodes=simulated_nodes(2), num_server_rounds=1, **source, **keys)

    return start


def check(run: Run, dataset: str) -> None:
    """The run is complete, formal and measured by what its data set's task has."""
    spec, summary = DATASETS[dataset], run.summary
    assert (summary["status"], summary["formal"]) == ("completed", True)
    assert summary["data_source"] == f"stand-in for {spec.title}"
    assert list(summary["recall"]) == list(spec.class_names)
    for metric in ("accuracy", "auc", "balanced_accuracy", "ece"):
        assert 0 <= summary[metric] <= 1
        assert float(run.rows("rounds.csv")[-1][metric]) == pytest.approx(summary[metric], abs=1e-5)
    assert ("class_distance" in summary) == (spec.task == "ordinal-regression")


@pytest.mark.parametrize(
    "dataset",
    [name if name in ONE_OF_EACH_TASK else pytest.param(name, marks=pytest.mark.slow) for name in SETS],
)
def test_every_set_runs_end_to_end(on_stand_in: Callable[..., Run], dataset: str) -> None:
    check(on_stand_in(dataset, objective="task"), dataset)


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "size"), [("bloodmnist", 64), ("chestmnist", 64), ("retinamnist", 224)])
@pytest.mark.parametrize("autoencoder", ["conv", "residual"])
def test_larger_images_run_end_to_end(
    on_stand_in: Callable[..., Run], dataset: str, size: int, autoencoder: str
) -> None:
    changes = {"autoencoder": autoencoder, "encoding_size": 0, "objective": "task"}
    check(on_stand_in(dataset, image_size=size, pages=True, **changes), dataset)


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_label_sets_leave_plain_with_encodings_and_are_never_called_formal(
    on_stand_in: Callable[..., Run], share: str
) -> None:
    run = on_stand_in("chestmnist", share=share, pages=True)
    summary = run.summary
    assert summary["status"] == "completed"
    assert summary["guarantees"]["labels"] == {
        **summary["guarantees"]["labels"],
        "formal": False,
        "epsilon": None,
    }
    uploaded = np.load(next((run.path / "hospitals" / "hospital-0").glob("released-*-train-labels.npy")))
    assert uploaded.shape == (60, 14)
    assert set(np.unique(uploaded)) == {0, 1}
    assert (run.path / "figures" / "label_distributions.png").exists()
    page = (run.path / "report.html").read_text()
    assert "pneumothorax" in page
    assert 'class="number">60</td>' in page  # the hospital's records, not their labels


REFUSED = {
    "label_epsilon": ({"label_epsilon": 1.0, "share": "encodings"}, "label-epsilon = 1.0"),
    "encoding_noise": ({"encoding_noise_epsilon": 4.0, "share": "encodings"}, "encoding-noise-epsilon = 4.0"),
    "dirichlet": ({"partition": "dirichlet"}, "partition = dirichlet"),
    "pathological": ({"partition": "pathological"}, "partition = pathological"),
    "label-flip": (
        {"adversary": "label-flip", "adversary_hospitals": "0", "objective": "task"},
        "adversary = label-flip",
    ),
    "worth joining": ({"worth_joining": "quick"}, "worth-joining = quick"),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_needs_one_class_a_record_is_refused_by_name(
    on_stand_in: Callable[..., Run], asked: str
) -> None:
    keys, named = REFUSED[asked]
    with pytest.raises(UserError) as refusal:
        on_stand_in("chestmnist", **keys)
    assert str(refusal.value).startswith(f"{named}: needs records of one class each")
    assert "ChestMNIST" in str(refusal.value)
    assert "\n" not in str(refusal.value)
