"""Data sources: no unofficial file and no stand-in passes for official data."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.npz_files import medmnist_arrays, write
from golden import REAL_COUNTS
from support import REAL_DATA, real_data

from fl_ppae.config import RunConfig
from fl_ppae.data import official, sources
from fl_ppae.data.cache import DataSource
from fl_ppae.data.download import DownloadError, Limits
from fl_ppae.data.official import describe_available
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.spec import DatasetSpec, OfficialFile
from fl_ppae.errors import UserError

BLOOD = DATASETS["bloodmnist"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(sources, "host_answers", lambda url: False)


def config(**keys: object) -> RunConfig:
    return RunConfig.from_flat({key.replace("_", "-"): value for key, value in keys.items()})


def official_spec(root: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """Write a small file to `root` that passes for the official BloodMNIST."""
    root.mkdir(exist_ok=True)
    digest = hashlib.md5(write(root / "bloodmnist.npz", medmnist_arrays()).read_bytes()).hexdigest()
    spec = replace(BLOOD, files=(OfficialFile("bloodmnist.npz", digest),))
    monkeypatch.setitem(DATASETS, "bloodmnist", spec)
    return spec


@pytest.mark.parametrize("name", ["pathmnist", "chestmnist", "mnist"])
def test_auto_offline_falls_back_to_the_stand_in_and_says_so_loudly(name: str) -> None:
    said: list[str] = []
    data = sources.resolve(config(dataset=name), warn=said.append)
    title = DATASETS[name].title
    assert data.source.kind == "stand-in"
    assert data.source.label == f"stand-in for {title}"
    (text,) = said
    lines = text.splitlines()
    assert len(lines) > 4
    assert len({len(line) for line in lines}) == 1
    assert f"DOES NOT USE {title.upper()}" in text


def test_the_warning_goes_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    sources.resolve(config(dataset="mnist"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "stand-in" in err


def test_auto_takes_the_official_file_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = official_spec(tmp_path / "data", monkeypatch)
    said: list[str] = []
    data = sources.resolve(config(dataset="bloodmnist", data_root=str(tmp_path / "data")), warn=said.append)
    assert said == []
    assert data.source == DataSource("BloodMNIST", "medmnist", "bloodmnist.npz", spec.files[0].md5)
    assert data.source.label == "BloodMNIST (official file)"


def test_auto_takes_the_real_official_bloodmnist() -> None:
    real_data("bloodmnist.npz")
    data = sources.resolve(config(dataset="bloodmnist", data_root=str(REAL_DATA)))
    assert data.source.kind == "medmnist"
    assert (len(data.train), len(data.val), len(data.test)) == REAL_COUNTS["bloodmnist.npz"]


@pytest.mark.parametrize("source", ["auto", "medmnist"])
def test_a_file_with_a_different_md5_is_refused_and_unchanged(source: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bloodmnist.npz", medmnist_arrays())
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{BLOOD.files[0].md5}"):
        sources.resolve(config(dataset="bloodmnist", data_source=source, data_root=str(tmp_path)))
    assert path.read_bytes() == before


def test_a_failed_download_names_file_md5_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(spec: DatasetSpec, folder: Path, limits: Limits) -> None:
        raise DownloadError("no route to host")

    monkeypatch.setattr(official, "_fetch", refuses)
    root = tmp_path / "data"
    with pytest.raises(UserError) as refusal:
        sources.resolve(config(dataset="pathmnist", data_source="medmnist", data_root=str(root)))
    for part in ("no route to host", "pathmnist.npz", "a8b06965200029087d5bd730944a56c1", str(root)):
        assert part in str(refusal.value)
    assert list(root.iterdir()) == []
    said: list[str] = []
    monkeypatch.setattr(sources, "host_answers", lambda url: True)
    assert sources.resolve(config(data_root=str(root)), warn=said.append).source.kind == "stand-in"
    assert "no route to host" in said[0]


def test_a_download_is_used_only_with_the_right_md5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official_spec(tmp_path / "there", monkeypatch)
    content = (tmp_path / "there" / "bloodmnist.npz").read_bytes()
    monkeypatch.setattr(sources, "host_answers", lambda url: True)
    for arrives, kind in ((content[:-1], "stand-in"), (content, "medmnist")):
        monkeypatch.setattr(
            official, "_fetch", lambda spec, to, limits, c=arrives: (to / "bloodmnist.npz").write_bytes(c)
        )
        root = tmp_path / kind
        keys = config(dataset="bloodmnist", data_root=str(root))
        assert sources.resolve(keys, warn=lambda text: None).source.kind == kind
        assert [path.name for path in root.iterdir()] == (["bloodmnist.npz"] if kind == "medmnist" else [])


def test_official_mnist_files_are_checked_and_read(tmp_path: Path) -> None:
    real_data("mnist.npz")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with np.load(REAL_DATA / "mnist.npz") as stored:
        for stem, split in (("train", "train"), ("t10k", "test")):
            for name, array in (("images-idx3", stored[f"x_{split}"]), ("labels-idx1", stored[f"y_{split}"])):
                head = np.array([0x800 + array.ndim, *array.shape], dtype=">i4").tobytes()
                (raw / f"{stem}-{name}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    keys = config(dataset="mnist", data_source="torchvision", data_root=str(tmp_path))
    official_data = sources.resolve(keys)
    assert official_data.source.label == "MNIST (official files)"
    file = sources.resolve(
        config(dataset="mnist", data_source="file", data_file=str(REAL_DATA / "mnist.npz"))
    )
    assert (official_data.val.images == file.val.images).all()
    assert (official_data.test.labels == file.test.labels).all()
    os.truncate(raw / "t10k-labels-idx1-ubyte", 100)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte has MD5"):
        sources.resolve(keys)


def test_the_path_of_a_data_file_may_be_relative_or_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.npz", medmnist_arrays())
    monkeypatch.chdir(tmp_path)
    for name in ("mine.npz", str(tmp_path / "mine.npz")):
        data = sources.resolve(config(dataset="bloodmnist", data_source="file", data_file=name))
        assert data.source.label == "BloodMNIST (file mine.npz)"
    with pytest.raises(UserError, match="no such file"):
        sources.resolve(config(dataset="bloodmnist", data_source="file", data_file="other.npz"))


def test_available_files_are_listed_without_downloading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official_spec(tmp_path, monkeypatch)
    write(tmp_path / "pathmnist.npz", medmnist_arrays())
    write(tmp_path / "octmnist_64.npz", medmnist_arrays())
    states = {(row.spec.name, row.spec.height): row.state for row in describe_available(str(tmp_path))}
    found = {("pathmnist", 28): "wrong MD5", ("bloodmnist", 28): "present", ("octmnist", 64): "wrong MD5"}
    absent = {(spec.name, spec.height): "missing" for spec in DATASETS.values()}
    assert states == absent | found


def test_the_sets_are_those_of_the_medmnist_package() -> None:
    from medmnist import INFO

    flat = {name: info for name, info in INFO.items() if not name.endswith("3d")}
    specs = {name: spec for name, spec in DATASETS.items() if spec.publisher == "medmnist"}
    assert specs.keys() == flat.keys()
    for name, info in flat.items():
        spec = specs[name]
        assert (spec.title, spec.channels) == (info["python_class"], info["n_channels"])
        assert info["task"].startswith(spec.task)
        assert len(spec.class_names) == len(info["label"])
        assert all(
            full.startswith(own) for own, full in zip(spec.class_names, info["label"].values(), strict=True)
        )
        assert list(spec.larger) == [64, 128, 224]
        for size, suffix in ((28, ""), (64, "_64"), (128, "_128"), (224, "_224")):
            sized = spec.sized(size)
            assert sized.image_shape == (spec.channels, size, size)
            assert sized.files == (OfficialFile(f"{name}{suffix}.npz", info[f"MD5{suffix}"]),)
            assert sized.urls == (info[f"url{suffix}"],)


def test_a_larger_size_has_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "bloodmnist.npz", medmnist_arrays())
    write(tmp_path / "bloodmnist_64.npz", medmnist_arrays())
    md5 = BLOOD.larger[64].md5
    keys = {"dataset": "bloodmnist", "data_source": "medmnist", "data_root": str(tmp_path)}
    with pytest.raises(UserError, match=f"bloodmnist_64.npz has MD5 .*; the official file has {md5}"):
        sources.resolve(config(**keys, image_size=64))


@pytest.mark.parametrize(
    ("name", "size", "valid"),
    [
        ("mnist", 64, "0 or 28 for MNIST"),
        ("cifar10", 28, "0 or 32 for CIFAR-10"),
        ("chestmnist", 32, "0, 28, 64, 128 or 224 for ChestMNIST"),
    ],
)
def test_a_size_that_is_not_published_is_refused(name: str, size: int, valid: str) -> None:
    with pytest.raises(UserError) as refusal:
        sources.resolve(config(dataset=name, image_size=size))
    assert str(refusal.value) == f"image-size = {size}: must be {valid}"


def test_meta_names_the_source() -> None:
    data = sources.resolve(config(dataset="bloodmnist", data_source="stand-in"))
    meta = json.loads((data.path / "meta.json").read_text())
    assert meta["source"]["kind"] == "stand-in"
    assert meta["counts"] == {"train": 4_000, "val": 800, "test": 1_000}
