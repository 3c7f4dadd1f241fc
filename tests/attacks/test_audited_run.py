"""A run is opened for attacks only if it completed and its data is the data that it used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks.audits import TINY, opened
from safetensors.torch import load_file, save_file
from support import Run, write_npz

from fl_ppae.attacks.audited_run import open_for_audit
from fl_ppae.errors import UserError
from fl_ppae.runs.stored import open_run


def test_data_that_has_changed_is_refused(federate: Callable[..., Run], data_file: Path):
    run = federate("run")
    opened(run)
    write_npz(data_file, seed=1)
    with pytest.raises(UserError, match=r"the data has changed: .* MD5"):
        opened(run)
    data_file.unlink()
    with pytest.raises(UserError, match="no such file"):
        opened(run)


def test_data_that_has_moved_is_found(federate: Callable[..., Run], data_file: Path, tmp_path: Path):
    run = federate("run")
    moved = data_file.rename(tmp_path / "elsewhere.npz")
    stored = open_run(run.path)
    assert len(open_for_audit(stored, TINY, lambda _: None, str(moved)).dataset.test) == 60


@pytest.mark.parametrize("name", ["encoder", "classifier"])
def test_a_network_with_numbers_that_are_not_finite_is_refused(federate: Callable[..., Run], name: str):
    run = federate("run")
    opened(run)
    path = run.path / f"{name}.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(UserError, match=f"{name}.safetensors holds numbers that are not finite"):
        opened(run)


def test_another_partition_than_the_runs_is_refused(federate: Callable[..., Run]):
    run = federate("run")
    dealt = run.path / "hospitals" / "hospital-1" / "train_records.npy"
    np.save(dealt, np.load(dealt)[::-1])
    with pytest.raises(UserError, match="not what the run's configuration deals to hospital-1"):
        opened(run)


def test_a_run_that_did_not_complete_is_refused(federate: Callable[..., Run]):
    run = federate("run")
    stored = open_run(run.path)
    with pytest.raises(UserError, match="'failed'; only a completed run"):
        open_for_audit(
            dataclasses.replace(stored, summary=stored.summary | {"status": "failed"}), TINY, lambda _: None
        )
