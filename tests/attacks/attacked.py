"""Runs one attack on a finished run; data sets that give much away."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from support import Run, write_npz

from fl_ppae.attacks.attack import Attack, Findings, Result
from fl_ppae.attacks.audited_run import AuditedRun, Effort, open_for_audit
from fl_ppae.runs.stored import open_run

EFFORT = Effort(50, 200, 20, 4, 60, 30, shadows=2, update_rounds=2, simulated=40, searches=30)
PLAIN = {"dp_scope": "none", "noise_multiplier": 0.0}


def opened(run: Run, **changes: int) -> AuditedRun:
    effort = dataclasses.replace(EFFORT, **changes)
    return open_for_audit(open_run(run.path), effort, lambda _: None)


def attacked(run: Run, attack: Attack, **changes: int) -> Findings:
    audited, (model,) = opened(run, **changes), attack.threat_models
    assert attack.missing(audited, model) is None
    return attack.run(audited, model)


def row(findings: Findings, metric: str, variant: str = "") -> Result:
    (found,) = [each for each in findings.results if each.metric == metric and variant in each.variant]
    return found


def random_labels(path: Path) -> Path:
    """As `write_npz`, but labels mean nothing: a classifier can only learn them by heart."""
    with np.load(write_npz(path, records=330)) as data:
        arrays = dict(data)
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        arrays[f"y_{split}"] = rng.permutation(arrays[f"y_{split}"])
    np.savez(path, **arrays)
    return path


def noise_images(path: Path) -> Path:
    """Few train records of pixel noise, of which there is nothing to learn but each itself."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 60, "val": 400, "test": 60}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 10
    np.savez(path, **arrays)
    return path
