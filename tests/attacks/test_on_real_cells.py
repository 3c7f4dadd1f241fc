"""What attacks find on BloodMNIST without defence, and do not find under DP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks.attacked import PLAIN, attacked, row
from support import REAL_DATA, Run, real_data, simulated_nodes

from fl_ppae.attacks import (
    membership_classifier,
    membership_updates,
    property_inference,
)

BLOOD = REAL_DATA / "bloodmnist.npz"


@pytest.mark.slow
def test_on_real_cells_the_mix_is_inferred_and_rmia_beats_the_loss(federate: Callable[..., Run]):
    real_data(BLOOD.name)
    run = federate(
        "blood",
        dataset="bloodmnist",
        data_file=str(BLOOD),
        autoencoder="conv",
        encoding_size=0,
        batch_size=1024,
        target_delta=1e-5,
        objective="task",
        share="updates+encodings",
        partition="pathological",
        record_messages=True,
        **PLAIN,
    )
    mix = row(attacked(run, property_inference.ATTACK), "total variation")
    assert mix.value < 0.5 * mix.chance  # 0.15 against 0.6 when measured, of five hospitals
    findings = attacked(run, membership_classifier.ATTACK)
    assert row(findings, "auc", "RMIA").low > 0.55
    assert row(findings, "auc", "RMIA").low > row(findings, "auc", "loss").high
    assert row(findings, "tpr at 0.1 % fpr", "RMIA").value > 0.003


def few_cells(path: Path) -> Path:
    """BloodMNIST with 1,000 train images, for hospitals of few records."""
    real_data(BLOOD.name)
    with np.load(BLOOD) as data:
        arrays = dict(data)
    rows = np.sort(np.random.default_rng(0).permutation(len(arrays["train_images"]))[:1000])
    for name in ("train_images", "train_labels"):
        arrays[name] = arrays[name][rows]
    np.savez(path, **arrays)
    return path


@pytest.mark.slow
def test_small_hospitals_updates_give_real_cells_away_and_not_under_dp(
    federate: Callable[..., Run], tmp_path: Path
):
    work = {
        "dataset": "bloodmnist",
        "data_file": str(few_cells(tmp_path / "few.npz")),
        "autoencoder": "conv",
        "encoding_size": 0,
        "batch_size": 100,
        "learning_rate": 0.004,
        "max_grad_norm": 0.001,
        "target_delta": 1e-5,
        "objective": "task",
        "record_messages": True,
        "nodes": simulated_nodes(10),
    }
    plain = attacked(federate("plain", **work, **PLAIN), membership_updates.ATTACK)
    assert row(plain, "auc", "whitened").low > 0.7  # 0.88 when measured
    assert row(plain, "tpr at 1 % fpr", "whitened").value > 0.1  # 0.26 when measured
    private = attacked(
        federate("private", target_epsilon=8.0, noise_multiplier=0.0, **work), membership_updates.ATTACK
    )
    found = row(private, "auc", "whitened")
    assert found.low < 0.55
    assert found.undefended > found.value + 0.1
