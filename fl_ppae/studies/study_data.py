"""The images of a study: loaded once, cut to its size, and written to a file that every worker reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Split
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.paths import file_problem, path_of, path_text

_SEED = 20_251_123  # of the choice of images: fixed, so that it does not depend on a run's seed


@dataclass(frozen=True)
class StudyData:
    """One data set of a study.

    Attributes:
        file: an `.npz` with MedMNIST's keys that holds the chosen images.
        label: the name of the source that every result carries. md5: of the source.
        records: number of images in each split.
    """

    dataset: str
    file: str
    label: str
    md5: str
    stand_in: bool
    records: dict[str, int]


def parse_files(pairs: list[str]) -> dict[str, Path]:
    """Parse `DATASET=FILE` pairs into files by data set.

    Raises:
        UserError: not a pair, or no such data set or file.
    """
    files = {}
    for pair in pairs:
        name, separator, file = pair.partition("=")
        if not separator or name not in DATASETS:
            raise UserError(f"--data {pair}: must be DATASET=FILE with DATASET one of {', '.join(DATASETS)}")
        path = path_of(file, f"--data {name}")
        if problem := file_problem(path):
            raise UserError(f"--data {pair}: {problem}: {path}")
        files[name] = path
    return files


def study_data(
    dataset: str, file: Path | None, source: str, sizes: dict[str, int], folder: Path
) -> StudyData:
    """Load `dataset`, choose up to `sizes` images of each split (0: all) and write them under `folder`.

    The choice keeps the class proportions of the split and is always the same.

    Raises:
        UserError: as `resolve`; it never falls back to a stand-in.
    """
    official = DATASETS[dataset].publisher
    found = resolve(
        RunConfig.from_flat({"dataset": dataset, "data-source": "file", "data-file": path_text(file)})
        if file is not None
        else RunConfig.from_flat({"dataset": dataset, "data-source": source or official})
    )
    arrays: dict[str, np.ndarray] = {}
    records = {}
    for name, split in {"train": found.train, "val": found.val, "test": found.test}.items():
        rows = choose_by_class(split, sizes[name])
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = split.images[rows], split.labels[rows]
        records[name] = len(rows)
    path = folder / f"{dataset}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not _holds(path, arrays):
        np.savez(path, allow_pickle=False, **arrays)
    stand_in = found.source.kind == "stand-in"
    return StudyData(dataset, str(path), found.source.label, found.source.md5, stand_in, records)


def choose_by_class(split: Split, size: int) -> np.ndarray:
    """Sorted positions of `size` images in the split's class proportions; all if `size` is 0 or too large."""
    if not 0 < size < len(split):
        return np.arange(len(split))
    rng = np.random.default_rng(_SEED)
    labels = np.asarray(split.labels)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * size / len(labels)
    share = np.floor(exact).astype(int)
    share[np.argsort(share - exact, kind="stable")[: size - share.sum()]] += 1  # largest remainders
    chosen = [
        rng.choice(np.flatnonzero(labels == label), count, replace=False)
        for label, count in zip(classes, share, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _holds(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    """Whether the file already holds these arrays: a resumed study keeps its data file."""
    if not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as stored:
        return all(
            key in stored.files and np.array_equal(stored[key], array) for key, array in arrays.items()
        )
