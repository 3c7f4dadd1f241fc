"""Your own images: the same pixels however they are stored, and one line for whatever is wrong."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.npz_files import forged
from data.own_sets import CLASSES, WRITERS, first_image, opened, rewritten, save, small_arrays
from PIL import Image

from fl_ppae.data.npz import SPLITS
from fl_ppae.errors import UserError

PIXELS = small_arrays()["train_images"][0]
Spoil = Callable[[Path], Any]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_way_to_store_images_gives_the_same_pixels_and_labels_in_the_same_order(
    kind: str, channels: int, tmp_path: Path
) -> None:
    arrays = small_arrays(channels)
    dataset = opened(WRITERS[kind](tmp_path, arrays))
    assert dataset.spec.class_names == (tuple("012") if kind == "npz" else CLASSES)
    for split in SPLITS:
        part = getattr(dataset, split)
        assert np.array_equal(part.images, arrays[f"{split}_images"])
        assert np.array_equal(part.labels, arrays[f"{split}_labels"])


# What is done to a sound folder, and what the one line then says.
FOLDERS: dict[str, tuple[Spoil, str]] = {
    "no train": (
        lambda root: (root / "train").rename(root / "trian"),
        "folders are test, trian, val; expected",
    ),
    "a split of another name": (lambda root: (root / "val").rename(root / "valid"), "unknown folder valid"),
    "no test image": (
        lambda root: [path.unlink() for path in (root / "test").rglob("*.png")],
        "no test record",
    ),
    "a class without an image": (lambda root: (root / "train" / "pink").mkdir(), "no image of class pink"),
    "one class": (
        lambda root: (
            [path.unlink() for path in root.rglob("*.png") if path.parent.name != "red"]
            + [path.rmdir() for path in root.rglob("*") if path.name in ("blue", "green")]
        ),
        "its only class is red",
    ),
    "classes.txt lacks a class": (
        lambda root: (root / "classes.txt").write_text("red\nblue\n"),
        "classes.txt lacks green; it lists red, blue",
    ),
    "classes.txt names a class twice": (
        lambda root: (root / "classes.txt").write_text("red\nred\nblue\ngreen\n"),
        "must list two or more different classes",
    ),
    "an image outside a class": (
        lambda root: save(root / "train" / "a.png", PIXELS),
        "a.png is no image in a",
    ),
    "another kind of file": (
        lambda root: (root / "train" / "red" / "notes.doc").write_text("x"),
        "notes.doc is",
    ),
    "a truncated PNG": (lambda root: os.truncate(first_image(root), 60), "png is damaged or cut short"),
    "an empty file": (lambda root: os.truncate(first_image(root), 0), "png is no PNG, JPEG or TIFF image"),
    "a web page": (lambda root: first_image(root).write_text("<html>"), "png is no PNG, JPEG or TIFF image"),
    "a GIF": (lambda root: save(first_image(root), PIXELS, format="GIF"), "is no PNG, JPEG or TIFF"),
    "another size": (
        lambda root: save(root / "val" / "red" / "00002.png", PIXELS[:4]),
        r"1 images are not colour, 8 x 8 pixels, such as .*00002.png \(colour, 4 x 8 pixels\); resize = 8",
    ),
    "grey among colour": (
        lambda root: save(root / "val" / "red" / "00002.png", PIXELS[..., 0]),
        r"1 images are not colour.*00002.png \(grey, .*image-shape = \"3,8,8\"",
    ),
    "transparent pixels": (
        lambda root: save(first_image(root), np.dstack([PIXELS, PIXELS[..., :1]])),
        "has transparent pixels",
    ),
    "a CMYK JPEG": (lambda root: save(first_image(root), PIXELS, "CMYK", format="JPEG"), "is a CMYK image"),
    "an animated TIFF": (
        lambda root: save(
            first_image(root), PIXELS, format="TIFF", save_all=True, append_images=[Image.fromarray(PIXELS)]
        ),
        "holds 2 images; expected one",
    ),
    "a floating-point TIFF": (
        lambda root: save(first_image(root), PIXELS[..., 0].astype(np.float32), format="TIFF"),
        "float32 pixels of no known range; set intensity-range",
    ),
    "16-bit colour": (
        lambda root: first_image(root).write_bytes(deep_colour()),
        "16 bits for each of several",
    ),
    "a decompression bomb": (
        lambda root: first_image(root).write_bytes(png_header(60_000, 60_000)),
        "has more than 89 million pixels",
    ),
    "a link out of the folder": (
        lambda root: relinked(first_image(root), root.parent / "elsewhere.png"),
        "is a link to a file outside the folder",
    ),
    "a link to a folder": (
        lambda root: (root / "train" / "pink").symlink_to(root / "train" / "red"),
        "pink is a link to a folder",
    ),
    "a link to nothing": (
        lambda root: (first_image(root).unlink(), (root / "train" / "red" / "x.png").symlink_to("gone.png")),
        "x.png can't be read .no such file",
    ),
    "a named pipe": (
        lambda root: (first_image(root).unlink(), os.mkfifo(root / "train" / "blue" / "x.png")),
        "x.png is a named pipe",
    ),
    "every test image in train": (
        lambda root: [
            (root / "train" / path.relative_to(root / "test"))
            .with_name(f"9{path.name}")
            .write_bytes(path.read_bytes())
            for path in sorted((root / "test").rglob("*.png"))
        ],
        "every test image stands in train",
    ),
}


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """The start of a PNG that announces this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(8 * (8 * 6 + 1))) + b"")


def deep_colour() -> bytes:
    return png_header(8, 8, depth=16) + b"\0\0\0\0IEND\xaeB`\x82"


def relinked(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


def columns(**changed: str) -> Callable[[list[list[str]]], list[list[str]]]:
    """Rows in which the first record has other values in these columns."""

    def change(rows: list[list[str]]) -> list[list[str]]:
        for column, value in changed.items():
            rows[1][rows[0].index(column)] = value
        return rows

    return change


def renamed(column: str, name: str) -> Callable[[list[list[str]]], list[list[str]]]:
    return lambda rows: [[name if cell == column else cell for cell in rows[0]], *rows[1:]]


def recoded(encoding: str) -> Spoil:
    return lambda path: path.write_text(path.read_text(), encoding=encoding)


MANIFESTS: dict[str, tuple[Spoil, str]] = {
    "empty": (lambda path: path.write_text(""), "it is empty; expected the columns path, label, split"),
    "only columns": (lambda path: rewritten(path, lambda rows: rows[:1]), "it has no rows"),
    "a missing column": (lambda path: rewritten(path, renamed("label", "lable")), "no column label"),
    "a column twice": (
        lambda path: rewritten(path, renamed("hospital", "label")),
        "several columns are called label",
    ),
    "semicolons": (
        lambda path: path.write_text(path.read_text().replace(",", ";")),
        "separated by ';'; use commas",
    ),
    "UTF-16": (recoded("utf-16"), "not UTF-8 text"),
    "zero bytes": (lambda path: path.write_bytes(bytes(100)), "not UTF-8 text"),
    "a short row": (
        lambda path: rewritten(path, lambda rows: [*rows, ["a.png"]]),
        "has 1 values for 5 columns",
    ),
    "an open quote": (lambda path: path.write_text(path.read_text() + '"images/'), "is no CSV"),
    "no label": (lambda path: rewritten(path, columns(label="")), "line 2 has no label"),
    "an unknown split": (lambda path: rewritten(path, columns(split="tarin")), "did you mean 'train'"),
    "a missing file": (
        lambda path: rewritten(path, columns(path="gone.png")),
        "gone.png can't be read .no such",
    ),
    "an absolute path": (lambda path: rewritten(path, columns(path="/etc/passwd")), "expected one below the"),
    "a path upwards": (lambda path: rewritten(path, columns(path="../own.png")), "expected one below the"),
    "a file in two rows": (
        lambda path: rewritten(path, lambda rows: [*rows, rows[1]]),
        "1 files stand in several rows, such as images/train-00000.png",
    ),
    "a record without a patient": (
        lambda path: rewritten(path, columns(patient="")),
        "1 records have no patient, the others do",
    ),
    "patients in two splits": (
        lambda path: path.write_text(
            path.read_text().replace("test-0,", "train-0,").replace("test-1,", "train-1,")
        ),
        "2 patients have records in more than one split",
    ),
    "not Parquet": (lambda path: path.rename(path.with_suffix(".parquet")), "no sound Parquet file"),
    "a spreadsheet": (lambda path: path.rename(path.with_suffix(".xlsx")), "expected an .npz, a folder of"),
}


def changed(key: str, change: Callable[[np.ndarray], Any]) -> Spoil:
    def spoil(path: Path) -> None:
        with np.load(path) as stored:
            arrays = dict(stored)
        np.savez(path, **arrays | {key: change(arrays[key])})

    return spoil


ARCHIVES: dict[str, tuple[Spoil, str]] = {
    "cut short": (lambda path: os.truncate(path, 900), r"not an \.npz, or a damaged one"),
    "encrypted": (lambda path: path.write_bytes(forged(path.read_bytes(), flags=1)), "is encrypted"),
    "floats of no range": (changed("test_images", lambda a: a / 255), "float64, of no known range"),
    "complex numbers": (changed("val_images", lambda a: a * 1j), "complex128, of no known range"),
    "channels first": (changed("train_images", lambda a: a.repeat(9, 1)), r"shape \(24, 72, 8, 3\)|72 x 8"),
    "another size": (changed("test_images", lambda a: a[:, :4]), "4 x 8 pixels, not 8 x 8; resize = 8 fits"),
    "other channels": (changed("test_images", lambda a: a[..., :2]), "has 2 channels, not 3"),
    "no images": (changed("val_images", lambda a: a[:0]), "val_images holds no images"),
    "labels from 1": (
        lambda path: [changed(f"{s}_labels", lambda a: a + 1)(path) for s in SPLITS],
        "lowest label is 1",
    ),
    "a label of no record": (
        lambda path: [changed(f"{s}_labels", lambda a: np.where(a == 2, 3, a))(path) for s in SPLITS],
        "no record has label 2",
    ),
    "negative labels": (changed("train_labels", lambda a: a - 1), "lowest label is -1"),
    "text labels": (changed("train_labels", lambda a: a.astype(str)), "train_labels holds no integers"),
    "fewer labels": (changed("train_labels", lambda a: a[:5]), "5 labels for 24 images"),
    "label sets": (changed("train_labels", lambda a: np.stack([a, a], 1)), r"expected \(N,\) or \(N, 1\)"),
}

BROKEN = [
    *(("folder", name, *case) for name, case in FOLDERS.items()),
    *(("manifest", name, *case) for name, case in MANIFESTS.items()),
    *(("npz", name, *case) for name, case in ARCHIVES.items()),
]


@pytest.mark.parametrize(
    ("kind", "spoil", "line"), [pytest.param(k, s, n, id=f"{k}: {i}") for k, i, s, n in BROKEN]
)
def test_a_broken_data_set_is_refused_in_one_line_that_names_it(
    kind: str, spoil: Spoil, line: str, tmp_path: Path
) -> None:
    path = WRITERS[kind](tmp_path, small_arrays())
    spoil(path)
    path = path if path.exists() else next(path.parent.glob("manifest.*"))
    with pytest.raises(UserError, match=line) as refusal:
        opened(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
