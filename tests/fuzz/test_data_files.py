"""Any file or folder where images are expected: a data set, or one line that says what is wrong."""

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.own_sets import WRITERS, first_image, opened, small_arrays
from fuzz.cases import damaged, refused_in_one_line, tiers, tried
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fl_ppae.data.check import inspect
from fl_ppae.data.npz import KEYS, SPLITS
from fl_ppae.declared import Declared

SMALL = small_arrays(train=12)
DTYPES = [np.uint8, np.int64, np.uint16, np.float32, np.float64, np.bool_, np.complex64, "U3", "S2", "M8[s]"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound data set of each form, read from copies alone."""
    root = tmp_path_factory.mktemp("sound")
    found = {}
    for name, write in WRITERS.items():
        (root / name).mkdir()
        found[name] = write(root / name, SMALL)
    return found


def usable(path: Path, **declared: Any) -> bool:
    """Whether a run takes it; `fl-ppae data check` must agree, in as many lines as there are mistakes."""
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    try:
        found = inspect(path, Declared(**declared), scratch)
    finally:
        shutil.rmtree(scratch)
    assert all("\n" not in line and line.strip() for line in found.wrong)
    refused = refused_in_one_line(lambda: opened(path, **declared))
    assert refused or not found.wrong, found.wrong
    return not refused


def array() -> st.SearchStrategy[Any]:
    """Of any type and of a shape that could be one of a few images or labels."""
    sides = st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 9), st.integers(0, 5))
    shapes = sides | sides.map(lambda shape: shape[:3]) | sides.map(lambda shape: shape[:1]) | st.just(())
    filled = st.tuples(st.sampled_from(DTYPES), shapes, st.integers(-2, 300))
    return filled.map(lambda one: np.full(one[1], one[2]).astype(one[0])) | st.sampled_from(
        list(SMALL.values())
    )


@tiers(short=25, long=700)
def test_any_arrays_are_a_data_set_or_one_line(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    changes = st.dictionaries(
        st.sampled_from([*sorted(KEYS), "more", "x_train"]), array() | st.none(), max_size=4
    )
    taken = 0

    def check(changed: dict[str, Any]) -> None:
        nonlocal taken
        np.savez(path, **{name: one for name, one in {**SMALL, **changed}.items() if one is not None})
        taken += usable(path)

    tried(cases, changes, check)
    assert 0 < taken < cases, "control: some of either kind"


@tiers(short=15, long=600)
def test_any_numbers_as_images_are_a_data_set_or_one_line(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    kinds = st.sampled_from([np.uint16, np.int32, np.float32, np.float64])
    images = kinds.flatmap(lambda kind: arrays_of.arrays(kind, (12, 4, 4)))
    ranges = st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)).filter(
        lambda ends: np.isfinite(ends).all() and ends[0] < ends[1]
    )

    def check(given: tuple[np.ndarray, tuple[float, float] | None]) -> None:
        pixels, ends = given
        changed = {f"{split}_images": pixels[: len(SMALL[f"{split}_labels"])] for split in SPLITS}
        np.savez(path, **{**SMALL, **changed})
        usable(path, intensity_range=ends)

    tried(cases, st.tuples(images, ranges), check)


@tiers(short=20, long=700)
def test_a_damaged_npz_is_a_data_set_or_one_line(cases: int, sound: dict[str, Path], tmp_path: Path) -> None:
    path, content = tmp_path / "own.npz", sound["npz"].read_bytes()

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        usable(path)

    tried(cases, damaged(content) | st.binary(max_size=50), check)


@pytest.mark.parametrize("form", ["folder", "dicom"])
@tiers(short=12, long=450)
def test_a_damaged_image_is_read_or_named(
    form: str, cases: int, sound: dict[str, Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(sound[form], tmp_path / "own"))
    image = first_image(root)
    content = image.read_bytes()

    def check(changed: bytes) -> None:
        image.write_bytes(changed)
        usable(root)

    tried(cases, damaged(content), check)


@tiers(short=12, long=400)
def test_a_folder_of_anything_is_a_data_set_or_one_line(
    cases: int, sound: dict[str, Path], tmp_path: Path
) -> None:
    picture = first_image(sound["folder"]).read_bytes()
    contents = st.sampled_from([picture, picture[:40], b"", b"GIF89a", b"\x00" * 132 + b"DICM"]) | st.binary(
        max_size=9
    )
    letters = st.text(st.characters(exclude_characters="/\x00"), min_size=1, max_size=6)
    names = letters.filter(lambda name: name not in (".", "..") and len(name.encode(errors="replace")) < 200)
    splits = st.sampled_from([*SPLITS, "test", "train", "images", "Train", "."]) | names
    classes = st.sampled_from(["a", "b", ".hidden", "classes.txt"]) | names
    files = st.lists(st.tuples(splits, classes, names, contents), max_size=8)
    root = tmp_path / "own"

    def check(given: list[tuple[str, str, str, bytes]]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for split, label, name, content in given:
            try:
                file = root / split / label / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            except (OSError, UnicodeEncodeError):  # a name that is taken, or that no file can have
                continue
        usable(root)

    tried(cases, files, check)


@tiers(short=20, long=700)
def test_any_manifest_is_a_data_set_or_one_line(cases: int, sound: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(sound["manifest"].parent, tmp_path / "own"))
    manifest = root / sound["manifest"].name
    content = manifest.read_bytes()
    with manifest.open(newline="") as file:
        rows = list(csv.reader(file))
    cell = st.text(max_size=6) | st.sampled_from(
        ["train", "test", "val", "", "../x", "/etc/passwd", rows[1][0]]
    )
    cells = st.lists(
        st.tuples(st.integers(0, len(rows) - 1), st.integers(0, len(rows[0]) - 1), cell),
        min_size=1,
        max_size=5,
    )

    def rewritten(changes: Sequence[tuple[int, int, str]]) -> bytes:
        changed = [list(row) for row in rows]
        for row, column, text in changes:
            changed[row][column] = text
        text = io.StringIO(newline="")
        csv.writer(text).writerows(changed)
        return text.getvalue().encode(errors="surrogatepass")

    def check(changed: bytes) -> None:
        manifest.write_bytes(changed)
        usable(manifest)

    tried(cases, cells.map(rewritten) | damaged(content) | st.binary(max_size=60), check)
