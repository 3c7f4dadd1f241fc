"""`report.html` of a study: its cells as one table, what trades against what, its verdicts and figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.paths import home
from fl_ppae.reporting.charts import Axes, Point, Series, xy_chart
from fl_ppae.reporting.page import Cell as HtmlCell
from fl_ppae.reporting.page import HtmlTable, picture, write_page
from fl_ppae.reporting.study_cells import CELL, MEASURES, Cell, Measured, frontier, read_cells
from fl_ppae.run_status import is_loud, marked_source

NAME = "report.html"
_WORDS = {
    "auc": "AUC",
    "epsilon": "epsilon (encoder updates)",
    "epsilon_formal": "guarantee",
    "inversion_ssim": "inversion SSIM",
    "worst_accuracy": "worst hospital's accuracy",
    "hellinger": "heterogeneity (Hellinger)",
}
_NO_DP = "none"


@dataclass(frozen=True)
class Figure:
    """A chart and its title."""

    title: str
    svg: Markup


def find_study(name: str) -> Path | None:
    """A study's folder, by its path or by its name under the project's home; None if there is none such."""
    for path in (Path(name).expanduser(), home() / "studies" / name):
        if (path / "study.json").is_file():
            return path.absolute()
    return None


def write_study_report(folder: Path, output: Path | None = None) -> Path:
    """Write a study's report into its folder, or to `output`; returns where it is.

    Raises:
        UserError: its `study.json` can't be read.
    """
    try:
        study: dict[str, Any] = read_json(folder / "study.json")
    except (OSError, json.JSONDecodeError) as problem:
        raise UserError(f"{folder / 'study.json'} can't be read: {problem}") from None
    cells = read_cells(folder / "cells.csv")
    best = {dataset: frontier(group) for dataset, group in _by(cells, "dataset", "classifier").items()}
    sources = sorted({cell.identity.get("source") or cell.identity.get("dataset", "") for cell in cells})
    loud = [source for source in sources if is_loud(source)]
    path = output or folder / NAME
    write_page(
        path,
        "study.html.j2",
        title=f"Study {study.get('name', folder.name)}" + (f" - {marked_source(loud[0])}" if loud else ""),
        heading=f"Study {study.get('name', folder.name)}",
        source="; ".join(map(marked_source, sources)) or "no cell has ended",
        loud=bool(loud),
        facts=_facts(cells),
        verdicts=_verdicts(folder),
        table=_table(cells, [cell for group in best.values() for cell in group]),
        charts=[*_frontiers(cells), *_prices(cells), *_splits(cells)],
        failed=_failed(folder),
        pictures=[
            picture(
                figure, f"Figure of the study: {figure.stem.replace('_', ' ')}", figure.stem.replace("_", " ")
            )
            for figure in sorted((folder / "figures").glob("*.png"))
        ],
        command=str(study.get("command") or ""),
        settings=list(_flat(study)),
    )
    return path


def _facts(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    seeds = max((held.seeds for cell in cells for held in cell.measured.values()), default=0)
    return [
        ("configurations", str(len(cells))),
        ("seeds, at most", str(seeds)),
        ("cells that failed", str(sum(cell.failed for cell in cells))),
    ]


def _table(cells: Sequence[Cell], best: Sequence[Cell]) -> HtmlTable:
    """Every configuration: mean and 95 % interval of what was measured."""
    identity = [name for name in CELL if any(cell.identity.get(name) for cell in cells)]
    sources = {(cell.identity.get("dataset"), cell.identity.get("source")) for cell in cells}
    if len(sources) == len({dataset for dataset, _ in sources}):  # then the head of the page tells them
        identity = [name for name in identity if name != "source"]
    measures = [name for name in MEASURES if any(name in cell.measured for cell in cells)]
    columns = [(_word(name), False) for name in identity] + [(_word(name), True) for name in measures]
    rows = []
    for cell in cells:
        names = [_identity(cell, name) for name in identity]
        values = [HtmlCell(_interval(cell.measured.get(name))) for name in measures]
        seeds = max((held.seeds for held in cell.measured.values()), default=0)
        on = HtmlCell("yes", "good") if cell in best else HtmlCell("")
        rows.append((*names, *values, HtmlCell(str(seeds)), HtmlCell(str(cell.failed)), on))
    columns += [("seeds", True), ("failed", True), ("on the frontier", False)]
    return HtmlTable(
        "Every configuration: mean over seeds ± half of the 95 % interval", tuple(columns), tuple(rows)
    )


def _identity(cell: Cell, name: str) -> HtmlCell:
    text = cell.identity.get(name, "")
    if name in ("dataset", "source") and is_loud(cell.identity.get("source", "")):
        return HtmlCell(marked_source(cell.identity["source"]), "bad")
    if name == "epsilon_formal" and text:
        has_epsilon = "epsilon" in cell.measured or "epsilon_max" in cell.measured
        if not has_epsilon:
            return HtmlCell("none")
        return HtmlCell("formal", "good") if cell.formal else HtmlCell("nominal, not a guarantee", "bad")
    return HtmlCell(text)


def _frontiers(cells: Sequence[Cell]) -> list[Figure]:
    """For each data set and classifier: accuracy against leakage, by what privacy it has."""
    figures = []
    for name, group in _by(cells, "dataset", "classifier").items():
        shown = [cell for cell in group if cell.value("inversion_ssim") is not None]
        series = [
            Series(privacy, tuple(_point(cell, float(cell.value("inversion_ssim") or 0)) for cell in held))
            for privacy, held in _by_privacy(shown).items()
        ]
        series = [one for one in series if one.points]
        if series:
            title = f"Accuracy, leakage and privacy: {name}"
            axes = Axes(title, "inversion SSIM (leakage, -1 to 1)", "accuracy (0 to 1)", _source(group))
            figures.append(Figure(title, xy_chart(series, axes, joined=False)))
    return figures


def _prices(cells: Sequence[Cell]) -> list[Figure]:
    """For each data set and classifier: accuracy by guaranteed epsilon, a series for each autoencoder."""
    figures = []
    for name, group in _by(cells, "dataset", "classifier").items():
        priced = [
            cell
            for cell in group
            if cell.value("accuracy") is not None and (cell.formal or cell.identity.get("privacy") == _NO_DP)
        ]
        levels = sorted({cell.identity.get("privacy", "") for cell in priced} - {""}, key=_budget)
        kinds = _by(priced, "autoencoder", "hospitals")
        series = []
        for index, (kind, held) in enumerate(kinds.items()):
            beside = 0.5 * (index - (len(kinds) - 1) / 2) / max(1, len(kinds))  # not over one another
            points = [_point(cell, levels.index(cell.identity["privacy"]) + beside) for cell in held]
            series.append(Series(kind, tuple(sorted(points, key=lambda point: point.x))))
        if len(levels) > 1:
            title = f"What a guarantee costs: {name}"
            axes = Axes(title, "epsilon of the encoder updates", "accuracy (0 to 1)", _source(priced))
            ticks = {float(place): _named(level) for place, level in enumerate(levels)}
            figures.append(Figure(title, xy_chart(series, axes, joined=False, x_names=ticks)))
    return figures


def _named(level: str) -> str:
    return "no DP" if level == _NO_DP else level


def _splits(cells: Sequence[Cell]) -> list[Figure]:
    """Accuracy, and the worst hospital's, against how unlike the hospitals are."""
    figures = []
    for measure, label in (("accuracy", "accuracy"), ("worst_accuracy", "the worst hospital's accuracy")):
        shown = [cell for cell in cells if cell.value("hellinger") is not None and measure in cell.measured]
        series = [
            Series(name, tuple(_point(cell, float(cell.value("hellinger") or 0), measure) for cell in held))
            for name, held in _by(shown, "noise", "hospitals").items()
        ]
        if series:
            title = f"Unlike hospitals and {label}"
            axes = Axes(
                title, "Hellinger distance of label mixes (0 to 1)", f"{label} (0 to 1)", _source(shown)
            )
            figures.append(Figure(title, xy_chart(series, axes, joined=False)))
    return figures


def _point(cell: Cell, x: float, measure: str = "accuracy") -> Point:
    held = cell.measured[measure] if measure in cell.measured else Measured(0.0, None, None, 0)
    told = [
        cell.identity.get(name, "") for name in ("autoencoder", "scope", "privacy", "partition", "hospitals")
    ]
    return Point(x, held.mean, held.low, held.high, f"({', '.join(filter(None, told))})")


def _by(cells: Iterable[Cell], *names: str) -> dict[str, list[Cell]]:
    """Cells by what they have under these columns, in words."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        told = [(name, cell.identity.get(name, "")) for name in names]
        words = [
            f"{text} hospital{'s' if text != '1' else ''}" if name == "hospitals" else text
            for name, text in told
            if text
        ]
        groups.setdefault(", ".join(words), []).append(cell)
    return groups


def _by_privacy(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        level = cell.identity.get("privacy", "")
        worth = "" if cell.formal else ", nominal"
        name = "no DP" if level in ("", _NO_DP) else f"epsilon {level}{worth}"
        groups.setdefault(name, []).append(cell)
    return dict(sorted(groups.items(), key=lambda item: (item[0] == "no DP", item[0])))


def _budget(level: str) -> float:
    try:
        return float(level)
    except ValueError:
        return float("inf")


def _source(cells: Sequence[Cell]) -> str:
    """One source's label; of several, one that must be marked comes first."""
    found = {cell.identity.get("source") or cell.identity.get("dataset", "unknown") for cell in cells}
    return "; ".join(sorted(found, key=lambda source: (not is_loud(source), source)))


def _verdicts(folder: Path) -> list[tuple[str, str, str]]:
    """(claim, verdict, sentence) of each, from `verdicts.json`."""
    try:
        found = read_json(folder / "verdicts.json")
    except (OSError, json.JSONDecodeError):
        return []
    listed = found.get("verdicts", []) if isinstance(found, dict) else found
    return [
        (
            ", ".join(str(one[key]) for key in ("claim", "dataset") if one.get(key)),
            str(one.get("verdict", "")),
            str(one.get("sentence") or one.get("text") or ""),
        )
        for one in listed
        if isinstance(one, Mapping)
    ]


def _failed(folder: Path) -> list[tuple[str, str]]:
    """(cell in words, error) of every row that failed."""
    try:
        with (folder / "cells.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("error")]
    except FileNotFoundError:
        return []
    named = [*CELL[:-1], "seed"]
    return [
        (", ".join(f"{name} {row[name]}" for name in named if row.get(name)), row["error"]) for row in rows
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, held in value.items():
        if isinstance(held, Mapping):
            yield from _flat(held, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, held)) if isinstance(held, list) else str(held)


def _word(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def _interval(held: Measured | None) -> str:
    if held is None:
        return "-"
    if held.low is None or held.high is None:
        return f"{held.mean:.3f}"
    return f"{held.mean:.3f} ± {held.high - held.mean:.3f}"
