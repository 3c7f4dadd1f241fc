"""What follows from a partition study's table: the files beside it, a figure, and a table to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from fl_ppae.files import write_atomically
from fl_ppae.reporting.tables import title
from fl_ppae.studies.figures import plot_partitions
from fl_ppae.studies.markdown import PARTITION_COLUMNS, results
from fl_ppae.studies.partition_grid import DATASET
from fl_ppae.studies.statistics import Mean, mean_interval
from fl_ppae.studies.study import Study, conclude
from fl_ppae.studies.summary import PARTITION_KEYS, PARTITION_METRICS, Group, summarise, write_summary
from fl_ppae.studies.table import Row, number
from fl_ppae.studies.verdict import Verdict, decide, verdict_markdown, verdict_table

NOTE = (
    "Federated, noise calibrated per hospital, paired by seed. A verdict follows the whole 95 % interval of "
    "the difference; none is corrected for their number."
)
_SHOWN = ("accuracy", "accuracy_hospitals", "accuracy_worst", "epsilon_min", "epsilon_max", "hellinger")


def write_results(study: Study) -> tuple[dict[str, Any], list[RenderableType]]:
    """Write them; returns the JSON document and the table. From however much of the table there is."""
    rows = study.rows()
    groups = summarise(rows, PARTITION_KEYS, PARTITION_METRICS)
    verdicts = against_iid([row for row in rows if not row["error"]])
    write_summary(study.path / "summary.csv", groups, PARTITION_KEYS, PARTITION_METRICS)
    document = conclude(study, rows, verdicts, NOTE)
    if not groups:
        return document, []
    if any(group.keys["setting"] == "federated" for group in groups):
        plot_partitions(groups, study.path / "figures" / "partitions.png")
    document["summary"] = [
        {**group.keys, "seeds": group.seeds, **{name: asdict(mean) for name, mean in group.means.items()}}
        for group in groups
    ]
    keys = ("partition", "setting", "noise", "hospitals")
    page = results(document, groups, keys, PARTITION_COLUMNS, verdict_markdown(verdicts, NOTE))
    write_atomically(study.path / "results.md", page.encode())
    return document, [_table(groups), verdict_table(verdicts, NOTE)]


def against_iid(rows: Sequence[Row]) -> list[Verdict]:
    """Whether a split costs accuracy against IID with as many hospitals, paired by seed."""
    federated = [row for row in rows if row["setting"] == "federated" and row["noise"] == "calibrated"]
    accuracy = {
        (row["partition"], row["hospitals"], row["seed"]): value
        for row in federated
        if (value := number(row, "accuracy")) is not None
    }
    found = []
    for hospitals in sorted({row["hospitals"] for row in federated}, key=int):
        for partition in dict.fromkeys(row["partition"] for row in federated if row["partition"] != "iid"):
            pairs = [
                (value, accuracy["iid", hospitals, seed])
                for (name, count, seed), value in accuracy.items()
                if (name, count) == (partition, hospitals) and ("iid", hospitals, seed) in accuracy
            ]
            if pairs:
                found.append(_against_iid(partition, hospitals, pairs))
    return found


def _against_iid(partition: str, hospitals: str, pairs: Sequence[tuple[float, float]]) -> Verdict:
    mean = mean_interval([own - iid for own, iid in pairs])
    own, iid = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return Verdict(
        partition,
        "costs accuracy",
        DATASET,
        f"{hospitals} hospitals",
        f"{partition}: {own:.3f}; iid: {iid:.3f}",
        decide(mean.low, mean.high, 0.0, at_least=False),
        mean.value,
        mean.low,
        mean.high,
        mean.n,
        0.0,
    )


def _table(groups: Sequence[Group]) -> Table:
    heading = title("Partition study, mean [95 % interval] over seeds", groups[0].keys["source"])
    table = Table(title=heading, title_justify="left")
    for name in ("partition", "setting", "noise", "hospitals", "seeds", *_SHOWN):
        table.add_column(name.replace("_", " "))
    for group in groups:
        keys = group.keys
        texts = ["-" if (mean := group.means.get(metric)) is None else _text(mean) for metric in _SHOWN]
        table.add_row(
            keys["partition"], keys["setting"], keys["noise"], keys["hospitals"], str(group.seeds), *texts
        )
    return table


def _text(mean: Mean) -> str:
    if math.isnan(mean.low) or mean.high - mean.low < 5e-4:
        return f"{mean.value:.3f}"
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
