"""What follows from a paper study's table: the files beside it, figures, and tables to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from fl_ppae.files import write_atomically
from fl_ppae.reporting.tables import title
from fl_ppae.studies.figures import plot_accuracy, plot_frontier
from fl_ppae.studies.markdown import PAPER_COLUMNS, results
from fl_ppae.studies.statistics import Mean
from fl_ppae.studies.study import Study, conclude
from fl_ppae.studies.summary import PAPER_KEYS, PAPER_METRICS, Group, summarise, write_summary
from fl_ppae.studies.verdict import verdict_markdown, verdict_table
from fl_ppae.studies.verdicts import NOTE, paper_verdicts

_SHOWN = ("accuracy", "auc", "cosine", "cosine_centred", "inversion_ssim", "epsilon")


def write_results(study: Study) -> tuple[dict[str, Any], list[RenderableType]]:
    """Write them; returns the JSON document and the tables. From however much of the table there is."""
    rows = study.rows()
    groups = sorted(summarise(rows, PAPER_KEYS, PAPER_METRICS), key=_order)
    verdicts = paper_verdicts([row for row in rows if not row["error"]])
    write_summary(study.path / "summary.csv", groups, PAPER_KEYS, PAPER_METRICS)
    document = conclude(study, rows, verdicts, NOTE)
    if not groups:
        return document, []
    plot_accuracy(groups, study.path / "figures" / "accuracy.png")
    plot_frontier(groups, study.path / "figures" / "frontier.png")
    document["summary"] = [
        {
            **group.keys,
            "seeds": group.seeds,
            **{name: asdict(mean) for name, mean in group.means.items()},
        }
        for group in groups
    ]
    keys = ("encoding", "autoencoder", "privacy", "scope", "hospitals", "classifier")
    page = results(document, groups, keys, PAPER_COLUMNS, verdict_markdown(verdicts, NOTE))
    write_atomically(study.path / "results.md", page.encode())
    return document, [*_tables(groups), verdict_table(verdicts, NOTE)]


def _order(group: Group) -> tuple[Any, ...]:
    keys = group.keys
    epsilon = math.inf if keys["privacy"] == "none" else float(keys["privacy"])
    rank = ("pixels", "pca", "scatternet", "random", "trained").index(keys["encoding"])
    return (keys["dataset"], rank, keys["autoencoder"], -epsilon, keys["scope"], keys["hospitals"])


def _tables(groups: Sequence[Group]) -> list[RenderableType]:
    tables: list[RenderableType] = []
    for source in dict.fromkeys(group.keys["source"] for group in groups):
        table = Table(
            title=title("Paper study, mean [95 % interval] over seeds", source), title_justify="left"
        )
        for name in ("encoding", "DP", "hospitals", "classifier", "seeds", *_SHOWN):
            words = {"epsilon": "epsilon (encoder updates)", "inversion_ssim": "inversion SSIM"}
            table.add_column(words.get(name, name.replace("_", " ")))
        for group in groups:
            if group.keys["source"] == source:
                table.add_row(*_cells(group))
        tables.append(table)
    return tables


def _cells(group: Group) -> list[str]:
    keys = group.keys
    name = keys["autoencoder"] if keys["encoding"] == "trained" else keys["encoding"]
    name = f"random {keys['autoencoder']}" if keys["encoding"] == "random" else name
    dp = "none" if keys["privacy"] == "none" else f"{keys['privacy']}, {keys['scope']}"
    texts = [_short(group.means.get(metric)) for metric in _SHOWN[:-1]]
    spent = group.means.get("epsilon")
    epsilon = "-" if spent is None else f"{spent.value:.2f}"
    if keys["epsilon_status"] == "nominal":
        epsilon += " nominal, not a guarantee"
    return [name, dp, keys["hospitals"], keys["classifier"], str(group.seeds), *texts, epsilon]


def _short(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    return f"{mean.value:.3f}" + ("" if math.isnan(mean.low) else f" [{mean.low:.3f}, {mean.high:.3f}]")
