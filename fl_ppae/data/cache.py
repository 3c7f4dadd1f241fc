"""A dataset as memory-mapped files, converted once and shared by every worker.

A cache is a folder `<dataset>-<kind>-<digest>` with nine `.npy` files and `meta.json`. A rename makes it
appear complete or not at all. Sizes and types are checked whenever it is opened, checksums once per run.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy_format

from fl_ppae.data.archive import enough_memory
from fl_ppae.data.identities import identities
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.pieces import pieces
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.spec import DatasetSpec, own_spec
from fl_ppae.declared import OWN_DATA
from fl_ppae.errors import UserError
from fl_ppae.files import home, read_json, write_json
from fl_ppae.paths import os_reason
from fl_ppae.steps import step

# Part of every digest: raise it when the layout of the files or the choice of a validation split changes.
_FORMAT = 4

Kind = Literal["medmnist", "torchvision", "file", "stand-in"]


@dataclass(frozen=True)
class DataSource:
    """Where the images came from.

    `file` is the file name without its folder, empty for a stand-in. `md5` is the MD5 of the file; for
    several files, of their MD5s; for a stand-in, of the code that draws it.
    """

    title: str
    kind: Kind
    file: str
    md5: str

    @property
    def label(self) -> str:
        """The name in tables and figures. A stand-in never bears the name of the dataset alone."""
        return {
            "medmnist": f"{self.title} (official file)",
            "torchvision": f"{self.title} (official files)",
            "file": f"{self.title} (file {self.file})",
            "stand-in": f"stand-in for {self.title}",
        }[self.kind]


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, H, W, C) uint8 and labels (N,) int64, both memory-mapped and read-only.

    The labels of a multi-label set are (N, K), each 0 or 1.

    Attributes:
        patients: (N,) int64, equal for records of the same patient; None if the data name no patients.
        hospitals: (N,) int64, the hospital that a record is from, negative if none is named; None likewise.
    """

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray | None = None
    hospitals: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One dataset, opened. `path` is all that another process needs: `open_cache(path)`.

    `identities`: (N,) int64 for each split, by its name, as of `data.identities`.
    """

    spec: DatasetSpec
    source: DataSource
    train: Split
    val: Split
    test: Split
    identities: Mapping[str, np.ndarray]
    path: Path


# Any other OSError, such as too many open files, says nothing about the cache.
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class _DamagedError(Exception):
    """A cache that must not be used; the message says why."""


def obtain(spec: DatasetSpec, source: DataSource, read: Callable[[Path], Arrays]) -> Dataset:
    """The cached dataset of `source`. A missing or damaged cache is made from `read(scratch)`.

    `scratch` is an empty folder on the cache's disk, for arrays too large for memory: `read` may return
    mapped files in it. It is gone when this returns. Safe to call from several processes at once: one makes
    the cache, the others wait.

    Raises:
        UserError: `read` raised it, or the cache can't be read or written. `read` must raise no OSError but
            for a write to `scratch`.
    """
    path = _cache_path(spec, source)
    step(f"reading {source.label}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            try:
                return _open(path, checksums=True)
            except _DamagedError:
                shutil.rmtree(path, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".scratch-", dir=path.parent) as scratch:
                arrays = read(Path(scratch))
                with enough_memory(source.label, sum(array.nbytes for array in arrays.values())):
                    _write(path, spec, source, arrays)
            return _open(path, checksums=False)
    except OSError as error:
        raise UserError(
            f"{path}: the data cache can't be read or written ({os_reason(error)}); "
            "FL_PPAE_HOME should be a writable folder with room"
        ) from None


def open_cache(path: Path) -> Dataset:
    """Map the cache at `path`, a `Dataset.path`. Takes milliseconds: checks sizes but no checksums.

    Raises:
        UserError: the cache is missing, incomplete, damaged or unreadable.
    """
    try:
        return _open(path, checksums=False)
    except _DamagedError as error:
        raise UserError(f"{path}: damaged data cache ({error}); delete the folder and start again") from None
    except OSError as error:
        raise UserError(f"{path}: the data cache can't be read ({os_reason(error)})") from None


def _cache_path(spec: DatasetSpec, source: DataSource) -> Path:
    # The digest includes the name, so that two equal files of different names keep their own labels.
    identity = f"{_FORMAT}|{spec.height}|{source.file}|{source.md5}"
    digest = hashlib.md5(identity.encode(), usedforsecurity=False).hexdigest()[:12]
    return home() / "cache" / f"{spec.name}-{source.kind}-{digest}"


def _write(path: Path, spec: DatasetSpec, source: DataSource, arrays: Arrays) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
    numbers = identities({split: arrays[f"{split}_images"] for split in SPLITS})
    arrays = arrays | {f"{split}_identities": numbers[split] for split in SPLITS}
    try:
        for name, array in arrays.items():
            _save(partial / f"{name}.npy", array)
        meta = {
            "format": _FORMAT,
            "dataset": spec.name,
            "image_size": spec.height,
            "own": _own_meta(spec) if spec.name == OWN_DATA else None,
            "source": asdict(source),
            "counts": {split: len(arrays[f"{split}_labels"]) for split in SPLITS},
            "crc32": {name: _crc32(partial / f"{name}.npy") for name in arrays},
        }
        write_json(partial / "meta.json", meta)
        partial.chmod(0o755)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _save(path: Path, array: np.ndarray) -> None:
    """As `numpy.save`, which loses the system's reason when a disk or a limit ends the writing."""
    with path.open("wb") as file:
        kind = npy_format.dtype_to_descr(array.dtype)
        npy_format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": array.shape})
        for piece in pieces(array):
            file.write(np.ascontiguousarray(piece).data)


def _open(path: Path, checksums: bool) -> Dataset:
    try:
        meta = read_json(path / "meta.json")
        spec = _spec_in(meta)
        source = DataSource(**meta["source"])
        counts, crc32 = dict(meta["counts"]), dict(meta["crc32"])
        if meta["format"] != _FORMAT:
            raise _DamagedError(f"format {meta['format']}, not {_FORMAT}")
        splits = {split: _map_split(path, split, spec, counts[split], crc32) for split in SPLITS}
        numbers = {split: _map_integers(path, split, "identities", (counts[split],)) for split in SPLITS}
    except (*_GONE, EOFError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from None
    if checksums:
        for name, expected in crc32.items():
            if _crc32(path / f"{name}.npy") != expected:
                raise _DamagedError(f"{name}.npy has a different checksum from when it was written")
    return Dataset(spec=spec, source=source, path=path, identities=numbers, **splits)


def _own_meta(spec: DatasetSpec) -> dict[str, Any]:
    return {"shape": spec.image_shape, "class_names": spec.class_names, "any_way_up": spec.any_way_up}


def _spec_in(meta: Mapping[str, Any]) -> DatasetSpec:
    if own := meta["own"]:
        channels, height, width = own["shape"]
        return own_spec((channels, height, width), tuple(own["class_names"]), bool(own["any_way_up"]))
    return DATASETS[meta["dataset"]].sized(meta["image_size"])


def _map_split(path: Path, split: str, spec: DatasetSpec, count: Any, files: Container[str]) -> Split:
    images = np.load(path / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    right = (count, spec.height, spec.width, spec.channels)
    if images.shape != right or images.dtype != np.uint8:
        raise _DamagedError(f"{split} images are {images.shape} {images.dtype}, not {right} uint8")
    labels = _map_integers(path, split, "labels", (count, *spec.label.shape))
    groups = {
        what: _map_integers(path, split, what, (count,))
        for what in ("patients", "hospitals")
        if f"{split}_{what}" in files
    }
    return Split(images, labels, **groups)


def _map_integers(path: Path, split: str, what: str, shape: tuple[Any, ...]) -> np.ndarray:
    values: np.ndarray = np.load(path / f"{split}_{what}.npy", mmap_mode="r", allow_pickle=False)
    if values.shape != shape or values.dtype != np.int64:
        raise _DamagedError(f"{split} {what} are {values.shape} {values.dtype}, not {shape} int64")
    return values


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return value
