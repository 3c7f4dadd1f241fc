"""A run does not notice how images are stored, and a deployed hospital reads its own as its operator says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.own_sets import CLASSES, small_arrays
from support import Run, real_data

from fl_ppae.data.example import write_dicom, write_folder, write_manifest
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.registry import DATASETS
from fl_ppae.declared import names_text
from fl_ppae.errors import UserError

CELLS = DATASETS["bloodmnist"].class_names
EVERY_ROW = 2**31
BLOOD = {"dataset": "custom", "image_shape": "3,28,28", "class_names": names_text(CELLS)}
SMALL_DELTA = 1e-5  # below 1 / records of a third of BloodMNIST


def slice_of_bloodmnist(rows: dict[str, int]) -> Arrays:
    with np.load(real_data("bloodmnist.npz")) as official:
        return {
            f"{split}_{part}": official[f"{split}_{part}"][: rows[split]]
            for split in SPLITS
            for part in ("images", "labels")
        }


def stored_everywhere(root: Path, arrays: Arrays) -> dict[str, Path]:
    np.savez(root / "blood.npz", **arrays)
    return {
        "npz": root / "blood.npz",
        "folder": write_folder(arrays, CELLS, root / "folder"),
        "manifest": write_manifest(arrays, CELLS, root / "table", ["A", "B"], of_a_patient=1),
        "dicom": write_dicom(arrays, CELLS, root / "dicom", of_a_patient=1),
    }


def check_equal_runs(arrays: Arrays, folder: Path, run: Callable[..., Run], rounds: int) -> None:
    stored = stored_everywhere(folder, arrays)
    keys = {"num_server_rounds": rounds, "target_delta": SMALL_DELTA}
    official = run("official", dataset="bloodmnist", **keys, data_file=str(stored["npz"]))
    for kind, path in stored.items():
        own = run(f"run-{kind}", **BLOOD, **keys, data_file=str(path))
        assert (own.path / "rounds.csv").read_bytes() == (official.path / "rounds.csv").read_bytes(), kind
        assert own.ledger == official.ledger


def test_a_slice_of_bloodmnist_gives_the_same_rounds_however_it_is_stored(
    tmp_path: Path, federate: Callable[..., Run]
) -> None:
    check_equal_runs(slice_of_bloodmnist({"train": 90, "val": 24, "test": 24}), tmp_path, federate, rounds=1)


@pytest.mark.slow
def test_the_whole_bloodmnist_gives_the_same_rounds_however_it_is_stored(
    tmp_path: Path, federate: Callable[..., Run]
) -> None:
    whole = {split: EVERY_ROW for split in SPLITS}
    check_equal_runs(slice_of_bloodmnist(whole), tmp_path, federate, rounds=1)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Forty colour images for train, of 8 x 8 pixels."""
    return write_folder(small_arrays(train=40), CLASSES, tmp_path / "own")


def deployed(tmp_path: Path, folder: Path, index: int, count: int = 2, **keys: Any) -> dict[str, Any]:
    return {
        "partition-id": index,
        "num-partitions": count,
        "data-file": str(folder),
        "state-dir": str(tmp_path / f"state-{index}"),
        "site-dir": str(tmp_path / f"site-{index}"),
        "class-names": names_text(CLASSES),
        "max-epsilon": 900.0,
        "max-delta": 1e-3,
        **keys,
    }


RUN = {
    "dataset": "custom",
    "class_names": names_text(CLASSES),
    "target_epsilon": 900.0,
    "num_server_rounds": 1,
}


def test_deployed_hospitals_read_their_own_files_as_their_operators_say(
    tmp_path: Path, own_folder: Path, federate: Callable[..., Run]
) -> None:
    larger = small_arrays(train=30, side=16)
    other = write_manifest(larger, CLASSES, tmp_path / "other", ["only"])
    nodes = [deployed(tmp_path, own_folder, 0), deployed(tmp_path, other, 1, resize=8)]
    run = federate("run", nodes=nodes, data_file=str(own_folder), image_shape="3,8,8", **RUN)
    assert run.summary["status"] == "completed"
    assert [row["records"] for row in run.rows("hospitals.csv")] == ["40", "30"]


def test_a_hospital_with_other_images_fails_in_words_that_tell_nothing_of_its_own(
    tmp_path: Path, own_folder: Path, federate: Callable[..., Run]
) -> None:
    other = write_folder(small_arrays(side=16), CLASSES, tmp_path / "other")
    nodes = [deployed(tmp_path, own_folder, 0), deployed(tmp_path, other, 1)]
    with pytest.raises(UserError, match=r"hospital-1's own images are not of the run's .*3,8,8") as told:
        federate("run", nodes=nodes, data_file=str(own_folder), image_shape="3,8,8", **RUN)
    assert "16" not in str(told.value)


@pytest.mark.parametrize(
    ("node", "run", "line"),
    [
        ({"class-names": ""}, {}, "config lacks class-names, which its operator declares"),
        ({}, {"dataset": "mnist", "class_names": ""}, "this node's config is for its own images"),
    ],
)
def test_a_run_can_not_choose_how_a_deployed_hospital_reads_its_files(
    node: dict[str, Any],
    run: dict[str, Any],
    line: str,
    tmp_path: Path,
    own_folder: Path,
    data_file: Path,
    federate: Callable[..., Run],
) -> None:
    nodes = [deployed(tmp_path, own_folder, 0, count=1, **node)]
    shape = {} if run else {"data_file": str(own_folder), "image_shape": "3,8,8"}
    with pytest.raises(UserError, match=line):
        federate("run", nodes=nodes, **{**RUN, **shape, **run})


def test_no_artefact_of_a_run_names_a_patient(tmp_path: Path, federate: Callable[..., Run]) -> None:
    arrays = small_arrays(train=60)
    manifest = write_manifest(arrays, CLASSES, tmp_path / "own", ["A", "B", "C"])
    manifest.write_text(re.sub(",train-([0-9]+),", r",Jane Doe \1,", manifest.read_text()))
    run = federate("named", data_file=str(manifest), image_shape="3,8,8", partition="natural", **RUN)
    for path in (*run.path.rglob("*"), *(tmp_path / "home").rglob("*")):
        assert not path.is_file() or b"Jane Doe" not in path.read_bytes(), path
