"""The results of a study: `summary.csv`, `verdicts.json`, `results.md`, figures and printed tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from fl_ppae.files import finite, read_json, write_atomically, write_json
from fl_ppae.privacy.figures import mark, written
from fl_ppae.reporting.tables import title
from fl_ppae.studies.columns import titled
from fl_ppae.studies.kinds import Kind
from fl_ppae.studies.study import Study
from fl_ppae.studies.summary import Group, summarise, write_summary
from fl_ppae.studies.table import failures
from fl_ppae.studies.verdict import verdict_markdown, verdict_table


def write_results(study: Study) -> tuple[dict[str, Any], list[RenderableType]]:
    """Write the results of the cells so far; returns the JSON document and the tables to print."""
    kind, table = study.kind, study.table()
    groups = summarise(table)
    if kind.order is not None:
        groups.sort(key=kind.order)
    verdicts = kind.verdicts(table)
    found = {"note": kind.note, "verdicts": [asdict(verdict) for verdict in verdicts]}
    write_summary(study.path / "summary.csv", groups, kind.columns)
    write_json(study.path / "verdicts.json", finite(found))
    document = {
        "study": str(study.path),
        **read_json(study.path / "study.json"),
        "cells": table["cell"].nunique(),
        "failed": failures(table),
        **found,
    }
    if not groups:
        return document, []
    kind.draw(groups, study.path / "figures")
    page = [*_markdown(document, groups, kind), *verdict_markdown(verdicts, kind.note)]
    write_atomically(study.path / "results.md", "\n".join(page).encode())
    document["summary"] = [
        {**group.keys, "seeds": group.seeds, **{name: asdict(mean) for name, mean in group.means.items()}}
        for group in groups
    ]
    tables = [_table(source, members, kind) for source, members in _by_source(groups).items()]
    return document, [*tables, verdict_table(verdicts, kind.note)]


def _by_source(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.keys["source"], []).append(group)
    return found


def _table(source: str, groups: Sequence[Group], kind: Kind) -> Table:
    """The configurations of one source as a table for the terminal."""
    heads = [*kind.labels(groups[0]), "seeds", *map(titled, kind.metrics)]
    heading = title(f"{kind.title}, mean [95 % interval] over seeds", source)
    table = Table(*heads, title=heading, title_justify="left")
    for group in groups:
        texts = [_text(group, metric) for metric in kind.metrics]
        table.add_row(*kind.labels(group).values(), str(group.seeds), *texts)
    return table


def _text(group: Group, metric: str) -> str:
    mean = group.means.get(metric)
    if metric != "epsilon":
        return "-" if mean is None else mean.with_interval(5e-4)
    return written(None if mean is None else mean.value, group.keys["epsilon_status"])


def _markdown(document: dict[str, Any], groups: Sequence[Group], kind: Kind) -> list[str]:
    """Machine and time, then one table for each data source."""
    machine = document["machine"]
    lines = [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {document.get('workers', 0)} workers of "
        f"one thread; {document['seconds'] / 60:.0f} minutes, together. {document['cells']} cells, "
        f"{len(document['failed'])} failed. Means over seeds with 95 % t-intervals.",
        "",
    ]
    for source, members in _by_source(groups).items():
        loud = " - NOT REAL DATA" if members[0].keys["stand_in"] == "true" else ""
        heads = [*kind.keys, "seeds", *map(titled, kind.metrics)]
        lines += [f"### {source}{loud}", "", _line(heads), _line("---" for _ in heads)]
        for group in members:
            texts = [_brief(group, metric) for metric in kind.metrics]
            lines.append(_line([*(group.keys[key] for key in kind.keys), str(group.seeds), *texts]))
        lines.append("")
        floors = [members[0].value(name) for name in ("ssim_mean_image", "ssim_class_mean")]
        if None not in floors:
            mean, class_mean = floors
            lines += [
                f"Floors of the inversion SSIM: mean image {mean:.3f}, class-mean image {class_mean:.3f}.",
                "",
            ]
    return lines


def _brief(group: Group, metric: str) -> str:
    mean = group.means.get(metric)
    if mean is None:
        return ""
    doubt = mark(group.keys["epsilon_status"], brief=True) if metric.startswith("epsilon") else ""
    return mean.plus_minus(1e-3) + doubt


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
