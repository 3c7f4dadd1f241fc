"""A study's table over seeds: means and 95 % intervals for each configuration, and `summary.csv`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_ppae.files import write_atomically
from fl_ppae.studies.statistics import Mean, mean_interval
from fl_ppae.studies.table import Row, number

PAPER_KEYS = (
    "dataset",
    "source",
    "stand_in",
    "encoding",
    "autoencoder",
    "privacy",
    "scope",
    "hospitals",
    "classifier",
    "epsilon_status",
)
PAPER_METRICS = (
    "accuracy",
    "auc",
    "cosine",
    "cosine_centred",
    "cosine_mismatched",
    "reconstruction_loss",
    "inversion_ssim",
    "ssim_mean_image",
    "ssim_class_mean",
    "epsilon",
    "seconds",
)
PARTITION_KEYS = (
    "dataset",
    "source",
    "stand_in",
    "partition",
    "setting",
    "noise",
    "hospitals",
    "epsilon_status",
)
PARTITION_METRICS = (
    "accuracy",
    "accuracy_hospitals",
    "accuracy_worst",
    "epsilon_min",
    "epsilon_max",
    "hellinger",
    "records_min",
    "records_max",
    "seconds",
)


@dataclass(frozen=True)
class Group:
    """One configuration: the values of its key columns, its seeds, and each metric's mean over them."""

    keys: dict[str, str]
    seeds: int
    means: dict[str, Mean]


def summarise(rows: Iterable[Row], keys: Sequence[str], metrics: Sequence[str]) -> list[Group]:
    """Groups in the table's order; failed cells are left out, metrics without a value too."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if not row["error"]:
            found.setdefault(tuple(row[key] for key in keys), []).append(row)
    groups = []
    for values, members in found.items():
        means = {}
        for metric in metrics:
            known = [value for row in members if (value := number(row, metric)) is not None]
            if known:
                means[metric] = mean_interval(known)
        groups.append(Group(dict(zip(keys, values, strict=True)), len(members), means))
    return groups


def write_summary(path: Path, groups: Iterable[Group], keys: Sequence[str], metrics: Sequence[str]) -> None:
    """`summary.csv`: the keys, `seeds`, and for each metric `m`, `m_low`, `m_high`; empty if unknown."""
    text = io.StringIO()
    ends = [column for metric in metrics for column in (metric, f"{metric}_low", f"{metric}_high")]
    writer = csv.DictWriter(text, [*keys, "seeds", *ends], restval="", lineterminator="\n")
    writer.writeheader()
    for group in groups:
        row: dict[str, object] = {**group.keys, "seeds": group.seeds}
        for metric, mean in group.means.items():
            values = (mean.value, mean.low, mean.high)
            columns = (metric, f"{metric}_low", f"{metric}_high")
            row |= {
                column: f"{value:.6g}"
                for column, value in zip(columns, values, strict=True)
                if not math.isnan(value)
            }
        writer.writerow(row)
    write_atomically(path, text.getvalue().encode())
