"""A study's table, read back: configurations, their means and intervals over seeds, the frontier among them.

`cells.csv` has a row for each cell and classifier, appended as the cell ended. The last row of a (cell,
classifier) counts; a row with an `error` is of a cell that failed, unless a later one succeeded. What a
configuration is are the columns of `IDENTITY` that the file has; what was measured, those of `MEASURES`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student_t

IDENTITY = (
    "dataset",
    "source",
    "stand_in",
    "classifier",
    "encoding",
    "autoencoder",
    "privacy",
    "scope",
    "partition",
    "setting",
    "noise",
    "hospitals",
    "epsilon_status",
)
MEASURES = (
    "accuracy",
    "accuracy_hospitals",
    "accuracy_worst",
    "auc",
    "epsilon",
    "epsilon_min",
    "epsilon_max",
    "inversion_ssim",
    "ssim_class_mean",
    "ssim_mean_image",
    "cosine",
    "cosine_centred",
    "reconstruction_loss",
    "hellinger",
)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """A mean over seeds and its 95 % t-interval; no interval from one seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Cell:
    """One configuration, over its seeds."""

    identity: Mapping[str, str]
    measured: Mapping[str, Measured]

    @property
    def formal(self) -> bool:
        """Whether its epsilon is a guarantee."""
        return self.identity.get("epsilon_status") == "formal"

    @property
    def trained(self) -> bool:
        """Whether an encoder was trained; a baseline has none, or one that never saw a record."""
        return self.identity.get("encoding", "trained") == "trained"

    @property
    def source(self) -> str:
        """Where its images came from; a stand-in says so."""
        label = self.identity.get("source") or self.identity.get("dataset") or "unknown data"
        drawn = self.identity.get("stand_in", "").lower() == "true"
        return f"stand-in: {label}" if drawn and not label.startswith("stand-in") else label

    @property
    def guaranteed_epsilon(self) -> float:
        """Its epsilon, or infinity without one that is a guarantee."""
        epsilon = self.measured.get("epsilon") or self.measured.get("epsilon_max")
        return epsilon.mean if self.formal and epsilon is not None else math.inf

    def value(self, measure: str) -> float | None:
        """The mean of a measure; None if it wasn't measured."""
        found = self.measured.get(measure)
        return None if found is None else found.mean


Row = dict[str, str]


def read_cells(path: Path) -> tuple[list[Cell], list[Row]]:
    """The configurations of a `cells.csv`, in the order in which they first appear, and the rows that failed.

    Both are empty if the file isn't there.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return [], []
    last = {(row.get("cell"), row.get("classifier")): row for row in rows}
    good = [row for row in last.values() if not row.get("error")]
    ended = {row.get("cell") for row in good}
    failed = [row for row in last.values() if row.get("error") and row.get("cell") not in ended]
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in good:
        key = tuple((name, row.get(name) or "") for name in IDENTITY if name in row)
        groups.setdefault(key, []).append(row)
    return [_cell(dict(key), held) for key, held in groups.items()], failed


def _cell(identity: dict[str, str], rows: Sequence[Row]) -> Cell:
    numbers = {name: _numbers(rows, name) for name in MEASURES}
    return Cell(identity, {name: summarise(values) for name, values in numbers.items() if values})


def _numbers(rows: Sequence[Row], name: str) -> list[float]:
    found = []
    for row in rows:
        try:
            found.append(float(row.get(name) or "nan"))
        except ValueError:
            continue
    return [value for value in found if math.isfinite(value)]


def summarise(values: Sequence[float]) -> Measured:
    """Mean and two-sided 95 % t-interval of one number per seed."""
    mean, count = fmean(values), len(values)
    if count < 2:
        return Measured(mean, None, None, count)
    half = float(student_t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * stdev(values) / math.sqrt(count)
    return Measured(mean, mean - half, mean + half, count)


def frontier(cells: Sequence[Cell]) -> list[Cell]:
    """Configurations that no other beats: none is as accurate, private and little leaking, and better in one.

    Privacy is the guaranteed epsilon, leakage the SSIM of inversion. Baselines, and what lacks accuracy or
    SSIM, are not ranked.
    """
    ranked = [
        (cell, (-accuracy, cell.guaranteed_epsilon, ssim))
        for cell in cells
        if cell.trained
        and (accuracy := cell.value("accuracy")) is not None
        and (ssim := cell.value("inversion_ssim")) is not None
    ]

    def beaten(score: tuple[float, ...]) -> bool:
        return any(
            other != score and all(one <= its for one, its in zip(other, score, strict=True))
            for _, other in ranked
        )

    return [cell for cell, score in ranked if not beaten(score)]
