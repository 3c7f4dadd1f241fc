"""The official files of a dataset: finds, checks, downloads and reads them."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock

from fl_ppae.data.checksums import file_md5, md5_of
from fl_ppae.data.npz import Arrays, carve_val, check_images, check_labels, read_npz
from fl_ppae.data.registry import DATASETS, DatasetSpec
from fl_ppae.errors import UserError
from fl_ppae.files import home

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
        return Path(chosen).expanduser().absolute()
    return Path.home() / ".medmnist" if spec.publisher == "medmnist" else home() / "torchvision"


def describe_available(chosen_root: str = "") -> list[Availability]:
    """Looks for every dataset's official files and checks them. Downloads nothing."""
    return [inspect_files(spec, data_root(spec, chosen_root)) for spec in DATASETS.values()]


def inspect_files(spec: DatasetSpec, root: Path) -> Availability:
    """Whether all official files are under `root` and have the right MD5.

    Raises:
        UserError: a file can't be read.
    """
    path = root / spec.files[0].name if len(spec.files) == 1 else root
    missing = [file.name for file in spec.files if not (root / file.name).is_file()]
    for file in spec.files:
        if file.name in missing:
            continue
        try:
            found = file_md5(root / file.name)
        except OSError as error:
            raise UserError(f"{root / file.name}: not readable ({error.strerror})") from None
        if found != file.md5:
            detail = f"{root / file.name} has MD5 {found}; the official file has {file.md5}"
            return Availability(spec, path, "wrong MD5", detail)
    if missing:
        return Availability(spec, path, "missing", f"{root / missing[0]} is missing")
    return Availability(spec, path, "present", "")


def combined_md5(spec: DatasetSpec) -> str:
    """The MD5 of the official version: of its file, or of the MD5s of several files."""
    return spec.md5 or md5_of(" ".join(file.md5 for file in spec.files))


def host_answers(host: str, seconds: float = 5.0) -> bool:
    """Whether `host`, or the proxy on the way to it, accepts a connection within `seconds`."""
    proxy = "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https", "")
    target = urllib.parse.urlsplit(proxy if "://" in proxy else f"https://{proxy or host}")
    answered = threading.Event()

    def connect() -> None:
        try:
            port = target.port or (80 if target.scheme == "http" else 443)
            with socket.create_connection((target.hostname or host, port), timeout=seconds):
                answered.set()
        except (OSError, ValueError):
            return

    # In a thread, because a name lookup has no timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


def download(spec: DatasetSpec, root: Path) -> None:
    """Download what is missing under `root`, with progress. Overwrites nothing.

    The files are downloaded into a temporary folder, checked, and only then moved into place. A lock lets
    one process download while others wait.

    Raises:
        UserError: names the file, its MD5 and where to put it.
    """
    locks = home() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"download-{md5_of(f'{root} {spec.name}')}.lock"):
        if inspect_files(spec, root).state != "missing":
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
                _fetch(spec, Path(folder))
                fetched = inspect_files(spec, Path(folder))
                if fetched.state != "present":
                    raise RuntimeError(f"the downloaded files are not the official ones: {fetched.detail}")
                for file in spec.files:
                    (root / file.name).parent.mkdir(parents=True, exist_ok=True)
                    if not (root / file.name).exists():
                        shutil.move(Path(folder) / file.name, root / file.name)
        except (RuntimeError, OSError, EOFError) as error:
            # medmnist turns every exception into a RuntimeError, even the user's Ctrl-C.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            cause = error.__context__ or error
            reason = " ".join(str(cause).split())[:160]
            raise UserError(
                f"{spec.title} could not be downloaded ({reason}); {_by_hand(spec, root)}"
            ) from None


def _by_hand(spec: DatasetSpec, root: Path) -> str:
    files = ", ".join(f"{file.name} (MD5 {file.md5})" for file in spec.files)
    return f"fetch it from {spec.host} and put under {root}: {files}"


def _fetch(spec: DatasetSpec, folder: Path) -> None:
    # Imported here: importing medmnist creates ~/.medmnist, and torchvision takes a second.
    if spec.publisher == "medmnist":
        import medmnist

        dataset = getattr(medmnist, spec.title)
        dataset(split="test", download=True, root=str(folder))
    else:
        from torchvision import datasets

        dataset = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[spec.name]
        dataset(folder, download=True)


def read_official(spec: DatasetSpec, root: Path) -> Arrays:
    """The six arrays of the official files under `root`. Check their MD5 first.

    Raises:
        UserError: as `read_npz`.
    """
    if spec.publisher == "medmnist":
        return read_npz(root / spec.files[0].name, spec)
    read = {"mnist": _read_mnist, "cifar10": _read_cifar10}[spec.name]
    arrays = {}
    for split, train in (("train", True), ("test", False)):
        images, labels = read(root, train)
        arrays[f"{split}_images"] = check_images(images, spec, f"{root}: {split} images")
        arrays[f"{split}_labels"] = check_labels(labels, spec, f"{root}: {split} labels", len(images))
    return carve_val(arrays, str(root))


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
