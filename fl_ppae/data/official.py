"""The official files of a dataset: finds, checks, downloads and reads them."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock

from fl_ppae.data.archive import enough_memory
from fl_ppae.data.checksums import file_md5, md5_of
from fl_ppae.data.download import DEFAULT_LIMITS, DownloadError, Limits, fetch
from fl_ppae.data.npz import Arrays, carve_val, check_images, check_labels, read_npz
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.spec import DatasetSpec
from fl_ppae.errors import UserError
from fl_ppae.files import home
from fl_ppae.paths import FILE, FOLDER, MISSING, file_problem, kind_of, os_reason, path_of
from fl_ppae.steps import step

State = Literal["present", "missing", "wrong MD5"]


@dataclass(frozen=True)
class Availability:
    """Whether one dataset's official files are on this machine; a row of `fl-ppae data`.

    `path` is the file, or the data root if there are several. `detail` says what is wrong, if anything.
    """

    spec: DatasetSpec
    path: Path
    state: State
    detail: str


def data_root(spec: DatasetSpec, chosen: str = "") -> Path:
    """The folder of the official files: `chosen` (the key data-root), or the publisher's default."""
    if chosen:
        return path_of(chosen, "data-root")
    if spec.publisher != "medmnist":
        return home() / "torchvision"
    try:
        return Path.home() / ".medmnist"
    except RuntimeError:  # a user without a home folder
        return home() / "medmnist"


def describe_available(chosen_root: str = "") -> list[Availability]:
    """Looks for every dataset's official files and checks them. Downloads nothing.

    Images of a larger size than the smallest are only listed if they are there.
    """
    found = []
    for spec in DATASETS.values():
        root = data_root(spec, chosen_root)
        found.append(inspect_files(spec, root))
        larger = (inspect_files(other, root) for other in spec.larger.values())
        found += [one for one in larger if one.state != "missing"]
    return found


def inspect_files(spec: DatasetSpec, root: Path) -> Availability:
    """Whether all official files are under `root` and have the right MD5.

    Raises:
        UserError: `root` is no folder, or a file can't be read.
    """
    if (kind := kind_of(root)) == FILE:
        raise UserError(f"data-root {root} is a file; give its folder, {root.parent}")
    if kind not in (FOLDER, MISSING):
        raise UserError(f"data-root {root}: {kind}; give the folder of {spec.files[0].name}")
    path = root / spec.files[0].name if len(spec.files) == 1 else root
    missing = []
    for file in spec.files:
        if (problem := file_problem(root / file.name)) == MISSING:
            missing.append(file.name)
            continue
        try:
            found = "" if problem else file_md5(root / file.name)
        except OSError as error:
            problem = os_reason(error)
        if problem:
            raise UserError(f"{root / file.name}: {problem}")
        if found != file.md5:
            detail = f"{root / file.name} has MD5 {found}; the official file has {file.md5}"
            return Availability(spec, path, "wrong MD5", detail)
    if missing:
        return Availability(spec, path, "missing", f"{root / missing[0]} is missing")
    return Availability(spec, path, "present", "")


def combined_md5(spec: DatasetSpec) -> str:
    """The MD5 of the official version: of its file, or of the MD5s of several files."""
    return spec.md5 or md5_of(" ".join(file.md5 for file in spec.files))


def download(spec: DatasetSpec, root: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Download what is missing under `root`, with progress. Overwrites nothing.

    The files are downloaded into a temporary folder, checked, and only then moved into place. A lock lets
    one process download while others wait.

    Raises:
        UserError: names the cause, the file, its MD5 and where to put it.
    """
    locks = home() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    step(f"waiting for another process that downloads {spec.title}")
    with FileLock(locks / f"download-{md5_of(f'{root} {spec.name}')}.lock"):
        if inspect_files(spec, root).state != "missing":
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
                _fetch(spec, Path(folder), limits)
                fetched = inspect_files(spec, Path(folder))
                if fetched.state != "present":
                    raise DownloadError(f"{spec.host} sent another file than the official one")
                for file in spec.files:
                    (root / file.name).parent.mkdir(parents=True, exist_ok=True)
                    if not (root / file.name).exists():
                        shutil.move(Path(folder) / file.name, root / file.name)
        except (DownloadError, OSError) as error:
            cause = f"{root} can't be written: {error.strerror}" if isinstance(error, OSError) else error
            raise UserError(
                f"{spec.title} could not be downloaded ({cause}); {_by_hand(spec, root)}"
            ) from None


def _by_hand(spec: DatasetSpec, root: Path) -> str:
    files = ", ".join(f"{file.name} (MD5 {file.md5})" for file in spec.files)
    return f"fetch it from {spec.host} and put under {root}: {files}"


def _fetch(spec: DatasetSpec, folder: Path, limits: Limits) -> None:
    """Fetch the official files into `folder`, unpacked."""
    for url in spec.urls:
        archive = folder / Path(urlsplit(url).path).name
        fetch(url, archive, spec.title, limits)
        step(f"unpacking {archive.name}")
        try:
            if archive.name.endswith(".tar.gz"):
                with tarfile.open(archive) as packed:
                    for file in spec.files:
                        packed.extract(file.name, folder, filter="data")
            elif archive.suffix == ".gz":
                target = folder / next(
                    file.name for file in spec.files if Path(file.name).name == archive.stem
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                with gzip.open(archive) as zipped, target.open("wb") as unpacked:
                    shutil.copyfileobj(zipped, unpacked)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, KeyError, zlib.error):
            raise DownloadError(f"{spec.host} sent a damaged {archive.name}") from None


def read_official(spec: DatasetSpec, root: Path, scratch: Path) -> Arrays:
    """The six arrays of the official files under `root`. Check their MD5 first.

    Images may be mapped files in the folder `scratch`.

    Raises:
        UserError: as `read_npz`.
    """
    if spec.publisher == "medmnist":
        return read_npz(root / spec.files[0].name, spec, scratch)
    read = {"mnist": _read_mnist, "cifar10": _read_cifar10}[spec.name]
    arrays = {}
    with enough_memory(str(root), 2 * sum((root / file.name).stat().st_size for file in spec.files)):
        for split, train in (("train", True), ("test", False)):
            images, labels = read(root, train)
            arrays[f"{split}_images"] = check_images(images, spec, f"{root}: {split} images")
            arrays[f"{split}_labels"] = check_labels(labels, spec, f"{root}: {split} labels", len(images))
        return carve_val(arrays, str(root), scratch)


def _read_mnist(root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    # Not through torchvision.datasets.MNIST, which prefers an old converted file with an unknown MD5.
    from torchvision.datasets import mnist

    stem = "train" if train else "t10k"
    images = mnist.read_image_file(str(root / f"MNIST/raw/{stem}-images-idx3-ubyte"))
    labels = mnist.read_label_file(str(root / f"MNIST/raw/{stem}-labels-idx1-ubyte"))
    return images.numpy(), labels.numpy()


def _read_cifar10(root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    from torchvision import datasets

    dataset = datasets.CIFAR10(root, train=train)
    return dataset.data, np.asarray(dataset.targets)
