"""What is known of a dataset before any file of it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

from fl_ppae.declared import OWN_DATA
from fl_ppae.errors import UserError

Task = Literal["multi-class", "binary-class", "ordinal-regression", "multi-label"]


@dataclass(frozen=True)
class OfficialFile:
    """One file of a dataset's official distribution, by its path under the data root."""

    name: str
    md5: str


@dataclass(frozen=True)
class LabelFormat:
    """What a record's label is: an array of `shape`, () for a class, of integers from 0 to `highest`."""

    shape: tuple[int, ...]
    highest: int


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before any file is read. Images are uint8.

    Attributes:
        height, width: of an image, in pixels.
        urls: where the official files are: the file itself, each file gzipped, or one .tar.gz of them all.
        task: as MedMNIST names it. Labels are (N,) classes; of a multi-label set (N, K), each 0 or 1.
        tested_elsewhere: the official test split was acquired at other centres than the train split.
        any_way_up: a mirrored or turned image is as likely as the image, as under a microscope.
        larger: the same images in the larger sizes in which they are published, by height and width.
    """

    name: str
    title: str
    channels: int
    height: int
    width: int
    class_names: tuple[str, ...]
    publisher: Literal["medmnist", "torchvision", "file"]
    urls: tuple[str, ...]
    files: tuple[OfficialFile, ...]
    task: Task = "multi-class"
    tested_elsewhere: bool = False
    any_way_up: bool = False
    larger: Mapping[int, DatasetSpec] = field(default_factory=dict, hash=False)

    @property
    def host(self) -> str:
        """The publisher's host."""
        return urlsplit(self.urls[0]).hostname or ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)

    @property
    def num_classes(self) -> int:
        """How many classes there are, 0 to num_classes - 1; of a multi-label set, how many labels."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether a record has any number of labels instead of one class."""
        return self.task == "multi-label"

    @property
    def label(self) -> LabelFormat:
        """What a record's label is: its class, or whether it has each of the labels."""
        return (
            LabelFormat((self.num_classes,), 1) if self.multi_label else LabelFormat((), self.num_classes - 1)
        )

    def class_counts(self, labels: np.ndarray) -> np.ndarray:
        """(K,) int64: how many of the records with these labels are of each class, or have each label."""
        return labels.sum(0) if self.multi_label else np.bincount(labels, minlength=self.num_classes)

    @property
    def md5(self) -> str | None:
        """Of the official MedMNIST file; None for a dataset of several files."""
        return self.files[0].md5 if len(self.files) == 1 else None

    def sized(self, pixels: int) -> DatasetSpec:
        """The same dataset with images of `pixels` x `pixels`; 0: as small as it is published.

        Raises:
            UserError: it is not published in that size.
        """
        if pixels in (0, self.height):
            return self
        if pixels not in self.larger:
            *others, last = (0, self.height, *self.larger)
            valid = f"{', '.join(map(str, others))} or {last}"
            raise UserError(f"image-size = {pixels}: must be {valid} for {self.title}")
        return self.larger[pixels]


def own_spec(shape: tuple[int, int, int], class_names: tuple[str, ...], any_way_up: bool) -> DatasetSpec:
    """A user's own images, `shape` (C, H, W), each of one class."""
    channels, height, width = shape
    return DatasetSpec(
        name=OWN_DATA,
        title="own images",
        channels=channels,
        height=height,
        width=width,
        class_names=class_names,
        publisher="file",
        urls=(),
        files=(),
        any_way_up=any_way_up,
    )
