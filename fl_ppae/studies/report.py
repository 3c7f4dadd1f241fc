"""`report.html` of a study: its cells as one table, what trades against what, its verdicts and figures."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from fl_ppae.errors import UserError
from fl_ppae.files import home, read_json
from fl_ppae.reporting.charts import Axes, Point, Series, xy_chart
from fl_ppae.reporting.page import Cell as HtmlCell
from fl_ppae.reporting.page import HtmlTable, picture, write_page
from fl_ppae.source_label import is_loud, marked_source
from fl_ppae.studies.report_cells import IDENTITY, MEASURES, Cell, Measured, Row, frontier, read_cells

NAME = "report.html"
_WORDS = {
    "auc": "AUC",
    "epsilon": "epsilon (encoder updates)",
    "epsilon_status": "epsilon is",
    "ssim_class_mean": "SSIM of class-mean image",
    "ssim_mean_image": "SSIM of mean image",
    "inversion_ssim": "inversion SSIM",
    "accuracy_hospitals": "mean hospital's accuracy",
    "accuracy_worst": "worst hospital's accuracy",
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
    cells, failed = read_cells(folder / "cells.csv")
    best = [cell for group in _by(cells, "dataset", "classifier").values() for cell in frontier(group)]
    sources = sorted({cell.source for cell in cells})
    loud = [source for source in sources if is_loud(source)]
    path = output or folder / NAME
    write_page(
        path,
        "study.html.j2",
        title=f"Study {study.get('name', folder.name)}" + (f" - {marked_source(loud[0])}" if loud else ""),
        heading=f"Study {study.get('name', folder.name)}",
        source="; ".join(map(marked_source, sources)) or "no cell has ended",
        loud=bool(loud),
        facts=_facts(cells, failed),
        verdicts=_verdicts(folder),
        table=_table(cells, best),
        charts=[*_frontiers(cells), *_prices(cells), *_splits(cells)],
        failed=_failed(failed),
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


def _facts(cells: Sequence[Cell], failed: Sequence[Row]) -> list[tuple[str, str]]:
    return [
        ("configurations", str(len(cells))),
        ("seeds, at most", str(max(map(_seeds, cells), default=0))),
        ("rows that failed", str(len(failed))),
    ]


def _seeds(cell: Cell) -> int:
    return max((held.seeds for held in cell.measured.values()), default=0)


def _table(cells: Sequence[Cell], best: Sequence[Cell]) -> HtmlTable:
    """Every configuration: mean and 95 % interval of what was measured."""
    identity = [name for name in IDENTITY if name != "stand_in" and any(map(_has(name), cells))]
    if len({cell.source for cell in cells}) == len({cell.identity.get("dataset") for cell in cells}):
        identity = [name for name in identity if name != "source"]  # the head of the page tells them
    measures = [name for name in MEASURES if any(name in cell.measured for cell in cells)]
    rows = []
    for cell in cells:
        names = [_identity(cell, name) for name in identity]
        values = [HtmlCell(_interval(cell.measured.get(name))) for name in measures]
        on = HtmlCell("yes", "good") if cell in best else HtmlCell("")
        rows.append((*names, on, *values, HtmlCell(str(_seeds(cell)))))
    columns = [(_word(name), False) for name in identity]
    columns += [("on the frontier", False), *((_word(name), True) for name in measures), ("seeds", True)]
    return HtmlTable(
        "Every configuration: mean ± half of the 95 % interval over seeds", tuple(columns), tuple(rows)
    )


def _has(name: str) -> Callable[[Cell], bool]:
    return lambda cell: bool(cell.identity.get(name))


def _identity(cell: Cell, name: str) -> HtmlCell:
    text = cell.identity.get(name, "")
    if name in ("dataset", "source") and is_loud(cell.source):
        return HtmlCell(marked_source(cell.source), "bad")
    if name == "epsilon_status":
        return HtmlCell(
            {"nominal": "nominal, not a guarantee"}.get(text, text),
            {"formal": "good", "nominal": "bad"}.get(text, ""),
        )
    return HtmlCell(text)


def _encoding(cell: Cell) -> str:
    """What the classifier sees: an autoencoder's encodings, or a baseline's."""
    kind, architecture = (cell.identity.get(name, "") for name in ("encoding", "autoencoder"))
    names = {
        "pixels": "raw pixels",
        "pca": "PCA",
        "scatternet": "ScatterNet",
        "random": f"random {architecture}",
    }
    return architecture if cell.trained else names.get(kind, kind)


def _frontiers(cells: Sequence[Cell]) -> list[Figure]:
    """For each data set and classifier: accuracy against leakage, by what privacy it has."""
    figures = []
    for name, group in _by(cells, "dataset", "classifier").items():
        shown = [
            cell for cell in group if cell.value("inversion_ssim") is not None and cell.value("accuracy")
        ]
        groups: dict[str, list[Point]] = {}
        for cell in sorted(shown, key=_budget):
            groups.setdefault(_worth(cell), []).append(_point(cell, cell.measured["inversion_ssim"].mean))
        if shown:
            title = f"Accuracy, leakage and privacy: {name}"
            axes = Axes(title, "inversion SSIM (leakage, -1 to 1)", "accuracy (0 to 1)", _source(group))
            floors = [floor for cell in shown if (floor := cell.value("ssim_class_mean")) is not None]
            marks = {"class-mean image": fmean(floors)} if floors else {}
            series = [Series(worth, tuple(points)) for worth, points in groups.items()]
            figures.append(Figure(title, xy_chart(series, axes, joined=False, upright=marks)))
    return figures


def _prices(cells: Sequence[Cell]) -> list[Figure]:
    """For each data set and classifier: accuracy by guaranteed epsilon, a series for each encoding."""
    figures = []
    for name, group in _by(cells, "dataset", "classifier").items():
        without = (cell for cell in group if cell.identity.get("privacy") == _NO_DP)
        priced = [
            cell for cell in (*filter(_is_formal, group), *without) if cell.value("accuracy") is not None
        ]
        levels = sorted({cell.identity.get("privacy", "") for cell in priced}, key=_level)
        kinds: dict[str, list[Cell]] = {}
        for cell in priced:
            federated = f", {_hospitals(cell)}" if cell.trained else ""
            kinds.setdefault(_encoding(cell) + federated, []).append(cell)
        series = []
        for index, (kind, held) in enumerate(kinds.items()):
            beside = 0.6 * (index - (len(kinds) - 1) / 2) / max(1, len(kinds))  # not over one another
            points = [_point(cell, levels.index(cell.identity["privacy"]) + beside) for cell in held]
            series.append(Series(kind, tuple(sorted(points, key=lambda point: point.x))))
        if len(levels) > 1:
            title = f"What a guarantee costs: {name}"
            axes = Axes(title, "epsilon of the encoder updates", "accuracy (0 to 1)", _source(priced))
            ticks = {float(place): _named(level) for place, level in enumerate(levels)}
            figures.append(Figure(title, xy_chart(series, axes, joined=False, x_names=ticks)))
    return figures


def _is_formal(cell: Cell) -> bool:
    return cell.formal and bool(cell.identity.get("privacy"))


def _named(level: str) -> str:
    return "no DP" if level == _NO_DP else level


def _splits(cells: Sequence[Cell]) -> list[Figure]:
    """Accuracy, and the worst hospital's, against how unlike the hospitals are."""
    figures = []
    for measure in ("accuracy", "accuracy_worst"):
        shown = [cell for cell in cells if cell.value("hellinger") is not None and measure in cell.measured]
        series = [
            Series(name, tuple(_point(cell, cell.measured["hellinger"].mean, measure) for cell in held))
            for name, held in _by(shown, "setting", "noise", "hospitals").items()
        ]
        if series:
            title = f"Unlike hospitals: {_word(measure)}"
            axes = Axes(
                title,
                "Hellinger distance of label mixes (0 to 1)",
                f"{_word(measure)} (0 to 1)",
                _source(shown),
            )
            figures.append(Figure(title, xy_chart(series, axes, joined=False)))
    return figures


def _point(cell: Cell, x: float, measure: str = "accuracy") -> Point:
    held = cell.measured[measure]
    told = [_encoding(cell), *(cell.identity.get(name, "") for name in ("scope", "partition"))]
    words = [word for word in (*told, _hospitals(cell)) if word and word != "none"]
    return Point(x, held.mean, held.low, held.high, f"({', '.join(words)})")


def _hospitals(cell: Cell) -> str:
    count = cell.identity.get("hospitals", "")
    return f"{count} hospital{'s' if count != '1' else ''}" if count else ""


def _by(cells: Iterable[Cell], *names: str) -> dict[str, list[Cell]]:
    """Cells by what they have under these columns, in words."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        told = [_hospitals(cell) if name == "hospitals" else cell.identity.get(name, "") for name in names]
        groups.setdefault(", ".join(filter(None, told)), []).append(cell)
    return groups


def _worth(cell: Cell) -> str:
    """The privacy of an encoder, in words."""
    level = cell.identity.get("privacy", "")
    if not cell.trained:
        return "baseline"
    return "no DP" if level in ("", _NO_DP) else f"epsilon {level}" + ("" if cell.formal else ", nominal")


def _budget(cell: Cell) -> tuple[bool, float, bool]:
    return not cell.trained, _level(cell.identity.get("privacy", "")), not cell.formal


def _level(privacy: str) -> float:
    try:
        return float(privacy)
    except ValueError:
        return math.inf


def _source(cells: Sequence[Cell]) -> str:
    """The sources' labels; one that must be marked comes first."""
    found = {cell.source for cell in cells}
    return "; ".join(sorted(found, key=lambda source: (not is_loud(source), source)))


def _verdicts(folder: Path) -> list[HtmlTable]:
    """The claims that were tested, from `verdicts.json`: counts by data set, then each; empty for none."""
    try:
        found = read_json(folder / "verdicts.json")
    except (OSError, json.JSONDecodeError):
        return []
    if not found["verdicts"]:
        return []
    counts: dict[str, dict[str, Counter[str]]] = {}
    rows = []
    for one in found["verdicts"]:
        claim, dataset, verdict = f"{one['claim']}: {one['statement']}", one["dataset"], one["verdict"]
        counts.setdefault(claim, {}).setdefault(dataset, Counter())[verdict] += 1
        mark = {"holds": "good", "does not hold": "bad"}.get(verdict, "")
        difference = HtmlCell(_difference(one["value"], one["low"], one["high"]))
        where = (HtmlCell(one["setting"]), HtmlCell(one["compared"]))
        rows.append((HtmlCell(claim), HtmlCell(dataset), HtmlCell(verdict, mark), difference, *where))
    datasets = list(dict.fromkeys(one["dataset"] for one in found["verdicts"]))
    summary = tuple(
        (HtmlCell(claim), *(HtmlCell(_counted(own.get(name, Counter()))) for name in datasets))
        for claim, own in counts.items()
    )
    columns = ("claim", "data set", "verdict", "difference [95 % interval]", "setting", "compared")
    return [
        HtmlTable("How often each claim holds", (("claim", False), *((n, False) for n in datasets)), summary),
        HtmlTable(
            "Every test", tuple((c, c.startswith("diff")) for c in columns), tuple(rows), found["note"]
        ),
    ]


def _counted(verdicts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in verdicts.most_common()) or "-"


def _difference(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" + ("" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]")


def _failed(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(cell, error) of every row that failed."""
    return [(row.get("cell") or row.get("dataset") or "a cell", row["error"]) for row in rows]


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
