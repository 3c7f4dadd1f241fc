"""Archives that numpy did not write, or that something has changed since."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data.npz_files import forged, medmnist_arrays, packed
from numpy.lib import format as npy_format

from fl_ppae.data.archive import enough_memory
from fl_ppae.data.npz import read_npz
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError

BLOOD = DATASETS["bloodmnist"]
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
ARRAYS = medmnist_arrays(2)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_npz(path, BLOOD, path.parent)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_compression_that_python_has_is_read(method: int, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(packed(ARRAYS, method))
    read = read_npz(tmp_path / "a.npz", BLOOD, tmp_path)
    assert all((read[f"{split}_images"] == ARRAYS[f"{split}_images"]).all() for split in ("train", "test"))


@pytest.mark.parametrize("method", [1, 6, 9, 18, 93, 95, 97, 98, 99, 65_535])
def test_any_other_compression_is_named(method: int, tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.npz", forged(packed(ARRAYS), method=method))
    assert f"train_images has compression method {method}; write it again with numpy.savez" in said


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x40])
@pytest.mark.parametrize("method", METHODS)
def test_encryption_of_any_kind_is_named(flags: int, method: int, tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.npz", forged(packed(ARRAYS, method), flags=flags))
    assert "train_images is encrypted; write it again with numpy.savez" in said


def test_what_a_later_zip_format_needs_is_no_traceback(tmp_path: Path) -> None:
    assert "can't be unpacked" in refusal(tmp_path / "a.npz", forged(packed(ARRAYS), version=90))
    assert "can't be unpacked" in refusal(tmp_path / "b.npz", forged(packed(ARRAYS), flags=0x20))


def header(shape: object, descr: object = "|u1", *, length: int | None = None) -> bytes:
    """The start of an .npy that announces `shape`; `length`: of the header, if it is a lie."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    size = len(text) if length is None else length
    return npy_format.magic(2, 0) + size.to_bytes(4, "little") + text


HEADERS = {
    "a terabyte": header((2**40, 28, 28, 3)),
    "more numbers than any machine has": header((2**80,)),
    "more than is there": header((3, 28, 28, 3)) + bytes(2 * 28 * 28 * 3),
    "less than nothing": header((-1, -28, 28, 3)),
    "a header of 4 GB": header((1,), length=2**32 - 1),
    "no tuple": header([1, 2]),
    "no type": header((1,), "|no"),
    "unfinished": npy_format.magic(1, 0) + b"\x12\x00{'descr': (((((((("[:20],
    "an unknown version": npy_format.magic(3, 0) + bytes(100),
    "nothing": b"",
}


@pytest.mark.parametrize("announced", HEADERS)
def test_an_announced_size_reserves_no_memory(announced: str, tmp_path: Path) -> None:
    others = {key: array for key, array in ARRAYS.items() if key != "train_images"}
    content = packed(others, zipfile.ZIP_DEFLATED, train_images=HEADERS[announced])
    tracemalloc.start()
    said = refusal(tmp_path / "a.npz", content)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert "train_images" in said


def test_a_pickled_array_is_refused_before_it_is_read(tmp_path: Path) -> None:
    others = {key: array for key, array in ARRAYS.items() if key != "train_labels"}
    for descr in ("|O", [("a", "|O")]):
        content = packed(others, train_labels=header((2,), descr) + b"cos\nsystem\n")
        assert "train_labels is a pickled object array" in refusal(tmp_path / "a.npz", content)


def test_wrong_keys_are_named_up_to_eight(tmp_path: Path) -> None:
    many = {f"key_{number:03}": np.zeros(1) for number in range(500)}
    said = refusal(tmp_path / "a.npz", packed(many))
    assert "its keys are key_000, " in said
    assert "key_007, and 492 more; expected train_images" in said


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The archive with a few bytes changed, added or lost, mostly in its headers."""
    changed = bytearray(content)
    starts = [at for at in range(len(content)) if content[at : at + 2] in (b"PK", b"\x93N")]
    for _ in range(rng.choice((1, 2, 5))):
        at = min(rng.choice(starts) + rng.randrange(130), len(changed) - 1)
        kind = rng.random()
        if kind < 0.7:
            changed[at] = rng.choice((0, 255, rng.randrange(256)))
        elif kind < 0.9:
            changed[at : at + rng.randrange(30)] = rng.randbytes(rng.randrange(30))
        else:
            del changed[max(at, 1) :]
    return bytes(changed)


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_archive_is_read_or_refused_but_never_a_traceback(method: int, tmp_path: Path) -> None:
    rng, sound = random.Random(method), packed(ARRAYS, method)
    path, refused = tmp_path / "a.npz", 0
    for _ in range(50):
        path.write_bytes(mutated(sound, rng))
        try:
            read_npz(path, BLOOD, tmp_path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 25


# In a process of its own: what an earlier test freed would be used again, whatever the limit.
READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path

from fl_ppae.data.npz import read_npz
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000, -1))
try:
    read_npz(Path(sys.argv[1]), DATASETS["bloodmnist"], Path(sys.argv[1]).parent)
except UserError as error:
    print(error)
"""


def test_too_little_memory_for_a_sound_file_is_called_that_with_what_it_needs(tmp_path: Path) -> None:
    count = 40_000
    arrays = ARRAYS | {
        "train_images": np.broadcast_to(np.uint8(0), (count, 28, 28, 3)),
        "train_labels": np.zeros(count, np.uint8),
    }
    path = tmp_path / "large.npz"
    np.savez_compressed(path, **arrays)
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said == f"{path}: not enough memory, needs 95 MB\n"
    assert len(read_npz(path, BLOOD, tmp_path)["train_labels"]) == count


def test_only_a_lack_of_memory_is_called_that() -> None:
    with (
        pytest.raises(UserError, match="here: not enough memory, needs 2 MB"),
        enough_memory("here", 1_500_000),
    ):
        raise MemoryError
    with pytest.raises(KeyError), enough_memory("here", 1):
        raise KeyError


def test_a_header_of_python_2_is_read_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    old = io.BytesIO()
    np.save(old, ARRAYS["train_images"])
    content = old.getvalue().replace(b"(2, 28, 28, 3), ", b"(2L, 28, 28, 3),")
    assert content != old.getvalue()
    others = {key: array for key, array in ARRAYS.items() if key != "train_images"}
    (tmp_path / "a.npz").write_bytes(packed(others, train_images=content))
    assert (read_npz(tmp_path / "a.npz", BLOOD, tmp_path)["train_images"] == ARRAYS["train_images"]).all()
    assert not recwarn.list
