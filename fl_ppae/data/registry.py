"""The datasets the project knows: shapes, classes, and the official files with their MD5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class OfficialFile:
    """One file of a dataset's official distribution, by its path under the data root."""

    name: str
    md5: str


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before any file is read. Images are `size` x `size` pixels, uint8.

    Attributes:
        urls: where the official files are: the file itself, each file gzipped, or one .tar.gz of them all.
        tested_elsewhere: the official test split was acquired at other centres than the train split.
        any_way_up: a mirrored or turned image is as likely as the image, as under a microscope.
    """

    name: str
    title: str
    channels: int
    size: int
    class_names: tuple[str, ...]
    publisher: Literal["medmnist", "torchvision"]
    urls: tuple[str, ...]
    files: tuple[OfficialFile, ...]
    tested_elsewhere: bool = False
    any_way_up: bool = False

    @property
    def host(self) -> str:
        """The publisher's host."""
        return urlsplit(self.urls[0]).hostname or ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.size, self.size)

    @property
    def num_classes(self) -> int:
        """How many labels there are: 0 to num_classes - 1."""
        return len(self.class_names)

    @property
    def md5(self) -> str | None:
        """Of the official MedMNIST file; None for a dataset of several files."""
        return self.files[0].md5 if len(self.files) == 1 else None


def _medmnist(
    name: str, title: str, class_names: tuple[str, ...], md5: str, *, tested_elsewhere: bool = False
) -> DatasetSpec:
    """One of MedMNIST's sets of 28 x 28 colour images under a microscope."""
    files = (OfficialFile(f"{name}.npz", md5),)
    urls = (f"https://zenodo.org/records/10519652/files/{name}.npz?download=1",)
    return DatasetSpec(
        name, title, 3, 28, class_names, "medmnist", urls, files, tested_elsewhere, any_way_up=True
    )


_TISSUES = (
    "adipose",
    "background",
    "debris",
    "lymphocytes",
    "mucus",
    "smooth muscle",
    "normal colon mucosa",
    "cancer-associated stroma",
    "colorectal adenocarcinoma epithelium",
)
_CELLS = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocytes",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
_SPECS = (
    _medmnist("pathmnist", "PathMNIST", _TISSUES, "a8b06965200029087d5bd730944a56c1", tested_elsewhere=True),
    _medmnist("bloodmnist", "BloodMNIST", _CELLS, "7053d0359d879ad8a5505303e11de1dc"),
    DatasetSpec(
        name="mnist",
        title="MNIST",
        channels=1,
        size=28,
        class_names=tuple("0123456789"),
        publisher="torchvision",
        urls=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
            "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
            "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
            "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
        ),
        files=(
            OfficialFile("MNIST/raw/train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
            OfficialFile("MNIST/raw/train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            OfficialFile("MNIST/raw/t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
            OfficialFile("MNIST/raw/t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        channels=3,
        size=32,
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        publisher="torchvision",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        files=(
            OfficialFile("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
            OfficialFile("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            OfficialFile("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            OfficialFile("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
            OfficialFile("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            OfficialFile("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
            OfficialFile("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        ),
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
