"""`fl-ppae make-start` writes a file that runs with as many channels can start from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import write_npz

from fl_ppae.cli import main
from fl_ppae.config import RunConfig
from fl_ppae.models.build import local_model_of
from fl_ppae.server.start_file import load_start


def made(folder: Path, *options: str) -> int:
    data = write_npz(folder / "tiny.npz")
    given = ["--data-source", "file", "--data-file", str(data), "--steps", "2", "--encoding-size", "8"]
    return main(["make-start", "mnist", *given, "--output", str(folder / "start.safetensors"), *options])


def test_a_grey_set_makes_a_start_for_images_in_colour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(tmp_path, "--channels", "3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["image_channels"], said["encoding_size"], said["records"]) == (3, 8, 333)
    assert 0 <= said["accuracy"] <= 1
    keys = {"autoencoder": "residual", "encoding-size": 8, "objective": "task"}
    same_classes = local_model_of(RunConfig.from_flat({**keys, "dataset": "cifar10"}))
    assert load_start(Path(said["file"]), same_classes)
    other_classes = local_model_of(RunConfig.from_flat({**keys, "dataset": "bloodmnist"}))
    assert not load_start(Path(said["file"]), other_classes)


def test_a_folder_that_can_not_hold_the_file_is_named_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert made(tmp_path, "--output", str(tmp_path / "file" / "start.safetensors")) == 2
    assert "fl-ppae: --output" in capsys.readouterr().err
