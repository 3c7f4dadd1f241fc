"""What is made of a file: its pixels by public constants alone, its name, and what a header says."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.own_sets import CLASSES, WRITERS, opened, rewritten, save, small_arrays
from PIL import Image

from fl_ppae.data import own_data
from fl_ppae.data.near import LEVELS, nearest
from fl_ppae.errors import UserError

GREY = small_arrays(1)["train_images"][0][..., 0]
COLOUR = small_arrays()["train_images"][0]


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return WRITERS["folder"](tmp_path, small_arrays(1))


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    return WRITERS["folder"](tmp_path, small_arrays())


def palette(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).convert("P")


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(GREY)).save(path, exif=exif)


SAME = {
    "8 bits": lambda path: save(path, GREY),
    "16 bits, of the type's range": lambda path: save(path, GREY.astype(np.uint16) * 257),
    "a palette of greys": lambda path: palette(GREY).save(path),
    "an opaque alpha channel": lambda path: save(path, np.dstack([GREY, np.full_like(GREY, 255)])),
    "turned, with an EXIF orientation": turned,
    "TIFF": lambda path: save(path, GREY, format="TIFF"),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_grey_image_is_read_from_every_kind_of_file(how: str, grey: Path) -> None:
    SAME[how](grey / "train" / "blue" / "00000.png")
    assert np.array_equal(opened(grey).train.images[0, ..., 0], GREY)


def test_a_declared_range_is_what_becomes_black_and_white(tmp_path: Path) -> None:
    arrays = {key: array if "labels" in key else array * 4.0 - 100 for key, array in small_arrays().items()}
    dataset = opened(WRITERS["npz"](tmp_path, arrays), intensity_range=(-100.0, 920.0))
    assert np.array_equal(dataset.val.images, small_arrays()["val_images"])
    narrower = opened(WRITERS["npz"](tmp_path, arrays), intensity_range=(0.0, 100.0))
    assert set(np.unique(narrower.val.images[arrays["val_images"] < 0])) == {0}
    assert set(np.unique(narrower.val.images[arrays["val_images"] > 100])) == {255}


def test_an_image_is_scaled_alike_whatever_the_others_are(tmp_path: Path) -> None:
    """Constants are public: another record changes no pixel of this one."""
    arrays = {key: array if "labels" in key else array * 1.0 for key, array in small_arrays().items()}
    before = opened(WRITERS["npz"](tmp_path, arrays), intensity_range=(0.0, 400.0)).train.images[1:].copy()
    arrays["train_images"][0] *= 100
    after = opened(WRITERS["npz"](tmp_path, arrays), intensity_range=(0.0, 400.0)).train.images[1:]
    assert np.array_equal(before, after)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float, tmp_path: Path) -> None:
    arrays = {key: array if "labels" in key else array * 1.0 for key, array in small_arrays().items()}
    arrays["val_images"][3, 2, 1] = bad
    with pytest.raises(UserError, match="val_images holds pixels that are NaN or infinite"):
        opened(WRITERS["npz"](tmp_path, arrays), intensity_range=(0.0, 255.0))


def test_mixed_sizes_are_fitted_only_if_asked_for(colour: Path) -> None:
    save(colour / "train" / "blue" / "00000.png", np.full((4, 16, 3), 200, np.uint8))
    with pytest.raises(UserError, match="resize = "):
        opened(colour)
    image = opened(colour, resize=8).train.images[0]
    assert (image[3:5] == 200).all()  # in proportion: two rows of eight
    assert (image[:3] == 0).all()


def test_grey_becomes_colour_only_if_declared(colour: Path) -> None:
    save(colour / "train" / "blue" / "00000.png", GREY)
    with pytest.raises(UserError, match='image-shape = "3,8,8"'):
        opened(colour)
    image = opened(colour, shape=(3, 8, 8)).train.images[0]
    assert np.array_equal(image, np.repeat(GREY[..., None], 3, axis=2))


def test_unreadable_files_are_tolerated_as_far_as_asked_and_named(colour: Path) -> None:
    os.truncate(colour / "train" / "blue" / "00000.png", 60)
    warned: list[str] = []
    dataset = opened(colour, warned, max_unreadable=1)
    assert np.array_equal(dataset.train.images, small_arrays()["train_images"][1:])
    assert warned == [f"{colour}: 1 files are left out: train/blue/00000.png is damaged or cut short"]


def test_a_split_of_which_nothing_can_be_read_is_named(colour: Path) -> None:
    for path in (colour / "val").rglob("*.png"):
        os.truncate(path, 60)
    with pytest.raises(UserError, match=r"no file of val can be used: val/blue/00000.png is damaged"):
        opened(colour, max_unreadable=6)


def test_a_cache_is_never_stale_and_never_made_twice(colour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = colour / "train" / "blue" / "00000.png"
    old = time.time_ns() - 10**10
    os.utime(path, ns=(old, old))
    first = opened(colour)
    save(path, 255 - COLOUR, compress_level=0)
    os.utime(path, ns=(old, old))
    assert np.array_equal(opened(colour).train.images[0], 255 - COLOUR)
    assert opened(colour, resize=4).train.images.shape[1:] == (4, 4, 3)
    monkeypatch.setattr(own_data, "read_listing", None)
    assert np.array_equal(opened(colour).train.images[1:], first.train.images[1:])


def test_classes_may_have_names_of_any_bytes(colour: Path) -> None:
    for name, other in (("red", os.fsdecode(b"caf\xe9")), ("blue", "a, b"), ("green", "new\nline")):
        for split in ("train", "val", "test"):
            (colour / split / name).rename(colour / split / other)
    assert opened(colour).spec.class_names == ("a\\x2c b", "caf\\xe9", "new\\x0aline")


def test_classes_come_in_natural_order_or_as_declared(colour: Path) -> None:
    for name, other in (("red", "grade 2"), ("blue", "grade 10"), ("green", "Grade 1")):
        for split in ("train", "val", "test"):
            (colour / split / name).rename(colour / split / other)
    assert opened(colour).spec.class_names == ("Grade 1", "grade 2", "grade 10")
    (colour / "classes.txt").write_text("grade 10\r\ngrade 2\r\nGrade 1\r\nnone yet\r\n")
    assert opened(colour).spec.class_names == ("grade 10", "grade 2", "Grade 1", "none yet")
    declared = ("grade 2", "grade 10", "Grade 1")
    dataset = opened(colour, class_names=declared)
    assert np.array_equal(dataset.val.labels, [(1, 2, 0)[label] for label in small_arrays()["val_labels"]])


def test_an_unreadable_folder_is_told_from_an_unwritable_cache(
    colour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuses)
        with pytest.raises(UserError, match=r"own: the folder can't be read \(Permission denied\)"):
            opened(colour)
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "in the way"))
    with pytest.raises(UserError, match="the data cache can't be read or written"):
        opened(colour)


def test_without_a_server_split_a_tenth_of_the_patients_becomes_it(tmp_path: Path) -> None:
    manifest = WRITERS["manifest"](tmp_path, small_arrays(train=60))
    split, patient = 2, 3
    rewritten(manifest, lambda rows: [row for row in rows if row[split] != "val"])
    dataset = opened(manifest)
    assert (len(dataset.train), len(dataset.val)) == (54, 6)
    assert dataset.train.patients is not None and dataset.val.patients is not None
    assert not set(dataset.train.patients.tolist()) & set(dataset.val.patients.tolist())
    rewritten(manifest, lambda rows: [[cell for at, cell in enumerate(row) if at != patient] for row in rows])
    assert opened(manifest).train.patients is None


def test_a_byte_order_mark_and_names_of_any_bytes_in_a_manifest_are_read(tmp_path: Path) -> None:
    manifest = WRITERS["manifest"](tmp_path, small_arrays())
    odd = b"images/caf\xe9.png"
    (manifest.parent / "images" / "train-00000.png").rename(manifest.parent / os.fsdecode(odd))
    content = manifest.read_bytes().replace(b"images/train-00000.png", odd)
    manifest.write_bytes(b"\xef\xbb\xbf" + content)
    assert np.array_equal(opened(manifest).train.images, small_arrays()["train_images"])


def test_a_parquet_manifest_is_read_like_a_csv(tmp_path: Path) -> None:
    import pandas as pd

    manifest = WRITERS["manifest"](tmp_path, small_arrays())
    table = pd.read_csv(manifest)
    table["label"] = table["label"].map({name: number for number, name in enumerate(CLASSES)})
    table.to_parquet(manifest.with_suffix(".parquet"))
    dataset = opened(manifest.with_suffix(".parquet"))
    assert dataset.spec.class_names == ("0", "1", "2")
    assert np.array_equal(dataset.train.images, small_arrays()["train_images"])


def test_copies_that_were_compressed_or_brightened_are_nearly_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(40, 200, (40, 7, 7, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)
    Image.fromarray(images[7]).save(tmp_path / "copy.jpg", quality=75)
    copy = np.asarray(Image.open(tmp_path / "copy.jpg"))
    positions, distances = nearest(np.stack([copy, images[9] + 12, images[3][::-1]]), images)
    assert positions[:2].tolist() == [7, 9]
    assert (distances[:2] <= LEVELS).all()
    assert distances[2] > LEVELS


def test_blank_images_are_near_to_nothing() -> None:
    blank = np.full((3, 8, 8, 1), 90, np.uint8)
    assert np.isinf(nearest(blank, blank)[1]).all()
