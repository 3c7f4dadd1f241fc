"""Reading .npz files: every mistake is explained in one line that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.npz_files import medmnist_arrays, write
from golden import REAL_COUNTS
from support import real_data

from fl_ppae.data.npz import Arrays, read_npz
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError

BLOOD, MNIST, PATH = DATASETS["bloodmnist"], DATASETS["mnist"], DATASETS["pathmnist"]


def test_labels_come_flat_and_int64_whatever_they_were(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int16, np.int64, np.uint64):
        for flat in (False, True):
            arrays = medmnist_arrays()
            labels = arrays["train_labels"].astype(dtype)
            arrays["train_labels"] = labels[:, 0] if flat else labels
            read = read_npz(write(tmp_path / "a.npz", arrays), BLOOD, tmp_path)
            assert read["train_labels"].shape == (12,)
            assert read["train_labels"].dtype == np.int64
            assert (read["train_labels"] == labels[:, 0]).all()
            assert (read["val_images"] == arrays["val_images"]).all()


def test_without_a_validation_split_a_tenth_of_train_becomes_it_always_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.integers(0, 256, (200, 28, 28), dtype=np.uint8),
        "y_train": np.arange(200) % 10,
        "x_test": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "y_test": np.arange(30) % 10,
    }
    first = read_npz(write(tmp_path / "a.npz", arrays), MNIST, tmp_path)
    second = read_npz(tmp_path / "a.npz", MNIST, tmp_path)
    assert first["train_images"].shape == (180, 28, 28, 1)
    assert first["val_images"].shape == (20, 28, 28, 1)
    assert all((first[key] == second[key]).all() for key in first)
    pieces = {image.tobytes() for image in np.concatenate([first["train_images"], first["val_images"]])}
    assert pieces == {image.tobytes() for image in arrays["x_train"]}


def changed(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {key: change(arrays[key])}


def without(key: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: array for name, array in arrays.items() if name != key}


BAD = {
    "wrong keys": (without("val_images"), "expected train_images"),
    "wrong size": (changed("val_images", lambda a: a[:, :20]), r"val_images has shape .* \(N, 28, 28, 3\)"),
    "grey for colour": (changed("train_images", lambda a: a[..., 0]), r"expected \(N, 28, 28, 3\)"),
    "channels first": (changed("train_images", lambda a: a.transpose(0, 3, 1, 2)), "expected"),
    "no dimension": (changed("train_images", lambda a: a[0, 0, 0, 0]), "expected"),
    "floats": (changed("test_images", lambda a: a / 255), "test_images is float64; .* uint8"),
    "label floats": (changed("test_labels", lambda a: a * 1.0), "test_labels is float64; expected integers"),
    "label booleans": (changed("test_labels", lambda a: a > 3), "test_labels is bool"),
    "several labels": (changed("val_labels", lambda a: np.hstack([a, a])), r"shape \(12, 2\)"),
    "fewer labels": (changed("train_labels", lambda a: a[:5]), "5 labels for 12 images"),
    "empty split": (changed("val_images", lambda a: a[:0]), "val_images is empty"),
    "label too high": (changed("train_labels", lambda a: a * 0 + 8), "label 8; BloodMNIST has 0 to 7"),
    "label below 0": (changed("train_labels", lambda a: a.astype(int) - 9), "BloodMNIST has 0 to 7"),
    "pickled": (changed("train_labels", lambda a: a.astype(object)), "train_labels is a pickled object"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_it(mistake: str, tmp_path: Path) -> None:
    spoil, message = BAD[mistake]
    path = write(tmp_path / "bad.npz", spoil(medmnist_arrays()))
    with pytest.raises(UserError, match=message) as refusal:
        read_npz(path, BLOOD, tmp_path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.npz", medmnist_arrays()).read_bytes()
    flipped = bytearray(good)
    flipped[5_000] ^= 0xFF
    contents = {
        "text": b"hello, this is no archive",
        "empty": b"",
        "pickle": b"\x80\x04\x95\x00",
        "cut short": good[: len(good) // 2],
        "only the start": good[:4],
        "one byte flipped": bytes(flipped),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not an \.npz|damaged"):
            read_npz(path, BLOOD, tmp_path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"a single \.npy"):
        read_npz(tmp_path / "single.npy", BLOOD, tmp_path)
    for path, problem in ((tmp_path / "missing.npz", "no such file"), (tmp_path, "a folder, not a file")):
        with pytest.raises(UserError, match=problem):
            read_npz(path, BLOOD, tmp_path)


def test_one_train_record_is_too_few_to_carve_from(tmp_path: Path) -> None:
    arrays = {"x_train": np.zeros((1, 28, 28), np.uint8), "y_train": np.zeros(1, int)}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"]}
    with pytest.raises(UserError, match="at least 2"):
        read_npz(write(tmp_path / "a.npz", arrays), MNIST, tmp_path)


REAL = {
    "bloodmnist.npz": BLOOD,
    "pathmnist_first1000.npz": PATH,
    "mnist.npz": MNIST,
    "cifar10_lossless_part.npz": DATASETS["cifar10"],
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_file_loads(name: str, tmp_path: Path) -> None:
    spec, arrays = REAL[name], read_npz(real_data(name), REAL[name], tmp_path)
    for split, count in zip(("train", "val", "test"), REAL_COUNTS[name], strict=True):
        assert arrays[f"{split}_images"].shape == (count, spec.height, spec.width, spec.channels)
        assert set(np.unique(arrays[f"{split}_labels"])) <= set(range(spec.num_classes))
