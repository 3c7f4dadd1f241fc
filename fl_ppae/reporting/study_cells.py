"""A study's table, read back: cells over seeds, their means and intervals, and the frontier among them.

`cells.csv` has a row for each cell and seed. What a cell is are the columns of `CELL` that the file has; what
was measured, those of `MEASURES`; a row with an `error` counts as failed. `epsilon_formal` says whether the
epsilon is a guarantee.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student_t

CELL = (
    "dataset",
    "source",
    "baseline",
    "classifier",
    "autoencoder",
    "privacy",
    "scope",
    "partition",
    "noise",
    "hospitals",
    "epsilon_formal",
)
MEASURES = (
    "accuracy",
    "worst_accuracy",
    "auc",
    "epsilon",
    "epsilon_min",
    "epsilon_max",
    "inversion_ssim",
    "cosine",
    "cosine_centred",
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
    """One configuration, over its seeds. `failed`: seeds that ended with an error."""

    identity: Mapping[str, str]
    measured: Mapping[str, Measured]
    failed: int

    @property
    def formal(self) -> bool:
        """Whether its epsilon is a guarantee."""
        return self.identity.get("epsilon_formal", "").lower() in ("true", "1", "yes")

    @property
    def guaranteed_epsilon(self) -> float:
        """Its epsilon, or infinity without one that is a guarantee."""
        epsilon = self.measured.get("epsilon") or self.measured.get("epsilon_max")
        return epsilon.mean if self.formal and epsilon is not None else math.inf

    def value(self, measure: str) -> float | None:
        """The mean of a measure; None if it wasn't measured."""
        found = self.measured.get(measure)
        return None if found is None else found.mean


def read_cells(path: Path) -> list[Cell]:
    """The cells of a `cells.csv`, in the order in which they first appear; none if it isn't there."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    groups: dict[tuple[tuple[str, str], ...], list[dict[str, str]]] = {}
    for row in rows:
        # A failed row may not know what its epsilon would have been worth: it joins the others by the rest.
        key = tuple((name, row.get(name) or "") for name in CELL if name in row and name != "epsilon_formal")
        groups.setdefault(key, []).append(row)
    return [_cell(dict(key), held) for key, held in groups.items()]


def _cell(identity: dict[str, str], rows: Sequence[Mapping[str, str]]) -> Cell:
    good = [row for row in rows if not row.get("error")]
    worth = {row["epsilon_formal"] for row in good if row.get("epsilon_formal")}
    if worth:
        identity["epsilon_formal"] = worth.pop() if len(worth) == 1 else "False"
    measured = {name: summarise(values) for name in MEASURES if (values := _numbers(good, name))}
    return Cell(identity, measured, len(rows) - len(good))


def _numbers(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
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
    """Cells that no other beats: at least as accurate, as private and as little leaking, and better in one.

    Privacy is the guaranteed epsilon, leakage the SSIM of inversion. Cells without accuracy or SSIM are not
    on it.
    """
    scores = [
        (-accuracy, cell.guaranteed_epsilon, ssim)
        for cell in cells
        if (accuracy := cell.value("accuracy")) is not None
        and (ssim := cell.value("inversion_ssim")) is not None
    ]
    complete = [cell for cell in cells if None not in (cell.value("accuracy"), cell.value("inversion_ssim"))]

    def beaten(score: tuple[float, ...]) -> bool:
        return any(
            other != score and all(one <= its for one, its in zip(other, score, strict=True))
            for other in scores
        )

    return [cell for cell, score in zip(complete, scores, strict=True) if not beaten(score)]
