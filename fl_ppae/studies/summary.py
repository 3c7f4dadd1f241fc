"""A study's table over seeds: means and 95 % intervals of each configuration, and `summary.csv`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fl_ppae.files import write_atomically
from fl_ppae.leakage.intervals import Estimate, t_mean
from fl_ppae.source_label import is_loud
from fl_ppae.studies.columns import KEYS, METRICS, Column
from fl_ppae.studies.table import succeeded


@dataclass(frozen=True)
class Mean(Estimate):
    """A mean over seeds, for display. The interval covers what the seeds change, not the choice of images."""

    @property
    def half(self) -> float | None:
        """Half of the interval; None without one."""
        return None if math.isnan(self.low) else self.high - self.value

    def with_interval(self, narrowest: float = 0.0) -> str:
        """Such as `0.812 [0.801, 0.823]`; the mean alone if the interval is narrower than `narrowest`."""
        if not self.high - self.low >= narrowest:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def plus_minus(self, narrowest: float = 0.0) -> str:
        """Such as `0.812 ± 0.011`; the mean alone if the interval is narrower than `narrowest`."""
        if not self.high - self.low >= narrowest:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ± {self.high - self.value:.3f}"


@dataclass(frozen=True)
class Group:
    """One configuration: its key columns, the number of its seeds, and the mean of each known metric."""

    keys: dict[str, str]
    seeds: int
    means: dict[str, Mean]

    @property
    def trained(self) -> bool:
        """Whether hospitals trained the encoder; otherwise it is a baseline."""
        return self.keys.get("encoding", "trained") == "trained"

    @property
    def encoder(self) -> str:
        """Such as `fc`, `random fc` or, without an autoencoder, `pca`."""
        architecture = self.keys.get("autoencoder", "")
        if self.trained:
            return architecture
        return f"random {architecture}" if self.keys["encoding"] == "random" else self.keys["encoding"]

    @property
    def formal(self) -> bool:
        """Whether its epsilon is a guarantee."""
        return self.keys.get("epsilon_status") == "formal"

    @property
    def source(self) -> str:
        """The source of its images; a stand-in is labelled as one."""
        label = self.keys["source"]
        drawn = self.keys["stand_in"] == "true"
        return f"stand-in: {label}" if drawn and not label.startswith("stand-in") else label

    def value(self, metric: str) -> float | None:
        """The mean of a metric; None if it was not measured."""
        mean = self.means.get(metric)
        return None if mean is None else mean.value


def numbers(table: pd.DataFrame, metric: str) -> pd.Series:
    """A column as numbers; NaN where it is empty."""
    return pd.to_numeric(table[metric], errors="coerce")


def summarise(table: pd.DataFrame) -> list[Group]:
    """The configurations of a study's table, in its order, without failed cells.

    Rows with equal key columns, of those that the table has, form a configuration.
    """
    good = succeeded(table)
    keys = [name for name in table if name in KEYS]
    metrics = [name for name in table if name in METRICS]
    if good.empty:
        return []
    measured = good.assign(**{name: numbers(good, name) for name in metrics})
    groups = []
    for found, rows in measured.groupby(keys, sort=False):
        known = {name: rows[name].dropna().to_numpy() for name in metrics}
        means = {name: Mean(**vars(t_mean(values))) for name, values in known.items() if len(values)}
        groups.append(Group(dict(zip(keys, found, strict=True)), len(rows), means))
    return groups


def write_summary(path: Path, groups: Iterable[Group], columns: Sequence[Column]) -> None:
    """`summary.csv`: the keys, `seeds`, and `m`, `m_low`, `m_high` for each metric m; empty if unknown."""
    keys = [column.name for column in columns if column.role == "key"]
    metrics = [column.name for column in columns if column.role == "metric"]
    rows = []
    for group in groups:
        row: dict[str, object] = {**group.keys, "seeds": group.seeds}
        for name, mean in group.means.items():
            row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
        rows.append(row)
    ends = [name for metric in metrics for name in (metric, f"{metric}_low", f"{metric}_high")]
    frame = pd.DataFrame(rows, columns=[*keys, "seeds", *ends])
    text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomically(path, text.encode())


def where(groups: Iterable[Group], **keys: str) -> list[Group]:
    """The groups with these values in their key columns."""
    return [group for group in groups if all(group.keys[key] == value for key, value in keys.items())]


def distinct(groups: Iterable[Group], key: str) -> list[str]:
    """The distinct values of a key column, in order of appearance."""
    return list(dict.fromkeys(group.keys[key] for group in groups))


def sources(groups: Iterable[Group]) -> str:
    """The sources of their images as one label for a figure; any that must be marked come first."""
    found = {group.source for group in groups}
    return "; ".join(sorted(found, key=lambda source: (not is_loud(source), source)))
