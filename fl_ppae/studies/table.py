"""A study's table, `cells.csv`: a row appended, and on the disk, as each cell ends; read back to resume.

A cell gives one row a classifier. A cell that failed gives one row, with its `error` and no classifier.
The last row of a (cell, classifier) counts, and one that succeeded ends an earlier failure.

Columns of a paper study (`PAPER_COLUMNS`):

| column | meaning |
|---|---|
| cell | the cell's name: dataset/encoding/privacy/scope/h<hospitals>/s<seed> |
| dataset, source, stand_in | key of the data set; where its images came from; `true` for drawn images |
| encoding | `pixels` (the paper's "no autoencoder"), `trained`; baselines `pca`, `scatternet`, `random` |
| autoencoder | `none`, `fc`, `fc-deep`, `conv`, `conv-image`; `none` but for `trained` and `random` |
| privacy | target epsilon of the encoder updates, such as `8`; `none` without DP or without training |
| scope | `none`, `encoder` (the paper's) or `autoencoder` |
| hospitals, seed | 1 is the paper's central training, and what untrained encodings are listed under |
| classifier | `lr` or `resnet18`, on the pooled encodings of all hospitals' train parts |
| accuracy, auc | on the test split; accuracy in [0, 1], AUC the mean over one-vs-rest curves |
| cosine, cosine_centred, cosine_mismatched | of test images and encodings; see `leakage.similarity` |
| reconstruction_loss | MSE per pixel of a fresh decoder fitted to the server's split; trained encoders only |
| inversion_ssim, inversion_attacker | best attacker's mean SSIM on test images; it held the server's split |
| ssim_mean_image, ssim_class_mean | the floors: an attacker who sees nothing, or the label alone |
| epsilon, delta | largest over hospitals, of the encoder updates alone, from the ledger; empty without DP |
| epsilon_status | `formal`, `nominal` (scope encoder: never a guarantee) or `none` |
| train_records, test_records | images used |
| seconds, error | of the whole cell; what went wrong, one line |

Columns of a partition study (`PARTITION_COLUMNS`): cell, dataset, source, stand_in, partition (as in the
grid: `iid`, `dirichlet-10`, ...), setting (`federated`, `central`, `alone`), noise (`calibrated`, `shared`
or empty), hospitals, seed, accuracy (all test images), accuracy_hospitals (mean over hospitals, each on its
own test images), accuracy_worst (the worst of them), epsilon_min, epsilon_max, delta, epsilon_status,
hellinger (mean over hospitals of the Hellinger distance of label mixes to the federation's, in [0, 1]),
records_min, records_max, seconds, error.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError

Row = dict[str, str]
FILE = "cells.csv"

PAPER_COLUMNS = (
    "cell",
    "dataset",
    "source",
    "stand_in",
    "encoding",
    "autoencoder",
    "privacy",
    "scope",
    "hospitals",
    "seed",
    "classifier",
    "accuracy",
    "auc",
    "cosine",
    "cosine_centred",
    "cosine_mismatched",
    "reconstruction_loss",
    "inversion_ssim",
    "inversion_attacker",
    "ssim_mean_image",
    "ssim_class_mean",
    "epsilon",
    "delta",
    "epsilon_status",
    "train_records",
    "test_records",
    "seconds",
    "error",
)
PARTITION_COLUMNS = (
    "cell",
    "dataset",
    "source",
    "stand_in",
    "partition",
    "setting",
    "noise",
    "hospitals",
    "seed",
    "accuracy",
    "accuracy_hospitals",
    "accuracy_worst",
    "epsilon_min",
    "epsilon_max",
    "delta",
    "epsilon_status",
    "hellinger",
    "records_min",
    "records_max",
    "seconds",
    "error",
)


def append(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add `rows` to the table and wait until they are on the disk. Missing values stay empty."""
    new = not path.exists() or path.stat().st_size == 0
    _end_last_line(path)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({key: _text(value) for key, value in row.items()})
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """The rows that count, in the order in which their cells ended; none where there is no table.

    Raises:
        UserError: it is no table of a study.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames and "cell" not in reader.fieldnames:
                raise UserError(f"{path}: no column 'cell'; it is not a study's table")
            rows = [row for row in reader if None not in row and None not in row.values()]
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"{path}: not a readable CSV ({problem})") from None
    return _that_count(rows)


def finished(rows: Iterable[Row], *, retry_failed: bool) -> set[str]:
    """Names of the cells that need not run again."""
    return {row["cell"] for row in rows if not (retry_failed and row["error"])}


def number(row: Row, column: str) -> float | None:
    """A cell of the table as a number; None where it is empty."""
    text = row.get(column) or ""
    return float(text) if text else None


def _that_count(rows: list[Row]) -> list[Row]:
    """Without the failures of cells that later succeeded, and with the last of equal rows only."""
    last = {(row["cell"], row.get("classifier", "")): row for row in rows}
    succeeded = {row["cell"] for row in last.values() if not row["error"]}
    return [row for row in last.values() if not (row["error"] and row["cell"] in succeeded)]


def _end_last_line(path: Path) -> None:
    """A line that a crash cut short must not swallow the next: end it, and `read` leaves it out."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _text(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, ".6g") if isinstance(value, float) else value
