"""A cache is complete, undamaged and made once; an MD5 is remembered until its file changes."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.npz_files import medmnist_arrays

from fl_ppae.data import cache, checksums
from fl_ppae.data.cache import Dataset, DataSource, obtain, open_cache
from fl_ppae.data.npz import Arrays
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError

BLOOD = DATASETS["bloodmnist"]
SOURCE = DataSource("BloodMNIST", "file", "a.npz", "0" * 32)


def flat(_scratch: Path | None = None) -> Arrays:
    arrays = medmnist_arrays()
    return {k: v[:, 0].astype(np.int64) if "labels" in k else v for k, v in arrays.items()}


def never(_scratch: Path) -> Arrays:
    raise AssertionError("the source was read again")


def stop_early(_scratch: Path) -> Arrays:
    raise KeyboardInterrupt


def test_a_cache_is_memory_mapped_read_only_and_read_from_its_source_once() -> None:
    arrays = flat()
    first = obtain(BLOOD, SOURCE, lambda _: arrays)
    again = obtain(BLOOD, SOURCE, never)
    opened = open_cache(first.path)
    for data in (first, again, opened):
        assert data.source == SOURCE
        for split in ("train", "val", "test"):
            part = getattr(data, split)
            assert isinstance(part.images, np.memmap)
            assert not part.images.flags.writeable
            assert (part.images == arrays[f"{split}_images"]).all()
            assert (part.labels == arrays[f"{split}_labels"]).all()


def test_equal_files_of_different_names_keep_their_own_labels() -> None:
    first = obtain(BLOOD, SOURCE, flat)
    second = obtain(BLOOD, replace(SOURCE, file="b.npz"), flat)
    assert (first.source.label, second.source.label) == ("BloodMNIST (file a.npz)", "BloodMNIST (file b.npz)")


def test_an_interrupted_conversion_leaves_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        obtain(BLOOD, SOURCE, stop_early)
    saved = []

    def dies(path: Path, array: np.ndarray) -> None:
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_save", dies)
        with pytest.raises(KeyboardInterrupt):
            obtain(BLOOD, SOURCE, flat)
    folder = cache.home() / "cache"
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    assert len(obtain(BLOOD, SOURCE, flat).train) == 12


def damage(data: Dataset, how: str) -> None:
    images = data.path / "train_images.npy"
    if how == "file missing":
        images.unlink()
    elif how == "cut short":
        os.truncate(images, images.stat().st_size - 1)
    elif how == "emptied":
        os.truncate(images, 0)
    elif how == "no meta":
        (data.path / "meta.json").unlink()
    elif how == "half a meta":
        os.truncate(data.path / "meta.json", 40)
    elif how == "other meta":
        (data.path / "meta.json").write_text("[]")
    elif how == "other shape":
        np.save(images, np.zeros((12, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "how",
    ["file missing", "cut short", "emptied", "no meta", "half a meta", "other meta", "other shape"],
)
def test_a_damaged_cache_is_refused_by_workers_and_rebuilt_by_the_run(how: str) -> None:
    data = obtain(BLOOD, SOURCE, flat)
    damage(data, how)
    with pytest.raises(UserError, match="damaged data cache"):
        open_cache(data.path)
    assert (obtain(BLOOD, SOURCE, flat).train.images == flat()["train_images"]).all()


def test_a_flipped_pixel_is_found_and_the_cache_rebuilt() -> None:
    data = obtain(BLOOD, SOURCE, flat)
    with (data.path / "val_images.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert (obtain(BLOOD, SOURCE, flat).val.images == flat()["val_images"]).all()


def test_many_at_once_convert_once() -> None:
    calls: list[int] = []

    def read(_scratch: Path) -> Arrays:
        calls.append(1)
        return flat()

    threads = [threading.Thread(target=obtain, args=(BLOOD, SOURCE, read)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_a_folder_that_cannot_be_written_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "in the way"))
    with pytest.raises(UserError, match="FL_PPAE_HOME"):
        obtain(BLOOD, SOURCE, flat)


def test_a_remembered_md5_is_not_trusted_once_the_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        assert checksums.file_md5(path) == hashlib.md5(content).hexdigest()
        assert checksums.file_md5(path) == hashlib.md5(content).hexdigest()


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    digest = checksums.file_md5(path)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: never())
    assert checksums.file_md5(path) == digest


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO])
def test_a_cache_that_can_not_be_opened_now_is_kept(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = obtain(BLOOD, SOURCE, flat)

    def refuses(*_: object, **__: object) -> np.ndarray:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "load", refuses)
    for open_it in (lambda: obtain(BLOOD, SOURCE, never), lambda: open_cache(made.path)):
        with pytest.raises(UserError, match="data cache can't be read"):
            open_it()
    monkeypatch.undo()
    assert open_cache(made.path).path == made.path
