"""`report.html` of a study: its configurations, trade-offs, verdicts and figures."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError
from fl_ppae.files import home, read_json
from fl_ppae.paths import FILE, kind_of, path_of
from fl_ppae.privacy.figures import FORMAL, NOMINAL, REFUTED
from fl_ppae.reporting.page import Cell, HtmlTable, picture, write_page
from fl_ppae.source_label import is_loud, marked_source
from fl_ppae.studies import table
from fl_ppae.studies.columns import TITLES
from fl_ppae.studies.frontier import frontier
from fl_ppae.studies.report_charts import frontier_charts, partition_charts, price_charts
from fl_ppae.studies.summary import Group, summarise
from fl_ppae.studies.verdict import difference

NAME = "report.html"
_KEYS = (
    "dataset",
    "source",
    "classifier",
    "encoding",
    "autoencoder",
    "privacy",
    "scope",
    "partition",
    "setting",
    "noise",
    "code_numbers",
    "code_bits",
    "hospitals",
    "run_formal",
    "epsilon_status",
)
_METRICS = (
    "accuracy",
    "accuracy_hospitals",
    "accuracy_worst",
    "auc",
    "epsilon",
    "epsilon_min",
    "epsilon_max",
    "inversion_ssim",
    "inversion_psnr",
    "retrieval_augmented_top1",
    "linkage_auc",
    "ssim_class_mean",
    "ssim_mean_image",
    "cosine",
    "cosine_centred",
    "reconstruction_loss",
    "hellinger",
)
_TITLES = {
    **TITLES,
    "epsilon_status": "epsilon is",
    "code_bits": "bits of an encoding",
    "inversion_psnr": "inversion PSNR (dB)",
    "linkage_auc": "linkage AUC",
    "ssim_class_mean": "SSIM of class-mean image",
    "ssim_mean_image": "SSIM of mean image",
    "accuracy_hospitals": "mean hospital's accuracy",
    "accuracy_worst": "worst hospital's accuracy",
    "hellinger": "heterogeneity (Hellinger)",
}


def find_study(name: str) -> Path | None:
    """A study's folder, by its path or by its name under the project's home; None if there is none."""
    for path in (path_of(name, "STUDY"), home() / "studies" / name):
        if kind_of(path / "study.json") == FILE:
            return path
    return None


def write_study_report(folder: Path, output: Path | None = None) -> Path:
    """Write a study's report into its folder, or to `output`; returns its path.

    Raises:
        UserError: its `study.json` or its table can't be read.
    """
    try:
        study: dict[str, Any] = read_json(folder / "study.json")
    except (OSError, json.JSONDecodeError) as problem:
        raise UserError(f"{folder / 'study.json'} can't be read: {problem}") from None
    rows = table.read(folder / table.FILE)
    groups, failed = summarise(rows), table.failures(rows)
    best = frontier(groups)
    sources = sorted({group.source for group in groups})
    loud = [source for source in sources if is_loud(source)]
    path = output or folder / NAME
    heading = f"Study {study.get('name', folder.name)}"
    write_page(
        path,
        "study.html.j2",
        title=heading + (f" - {marked_source(loud[0])}" if loud else ""),
        heading=heading,
        source="; ".join(map(marked_source, sources)) or "no cell has finished",
        loud=bool(loud),
        facts=[
            ("configurations", len(groups)),
            ("seeds, at most", max((group.seeds for group in groups), default=0)),
            ("rows that failed", len(failed)),
        ],
        verdicts=_verdicts(folder),
        table=_table(groups, best),
        charts=[*frontier_charts(groups), *price_charts(groups), *partition_charts(groups)],
        failed=failed,
        pictures=[
            picture(figure, f"Figure of the study: {words}", words)
            for figure in sorted((folder / "figures").glob("*.png"))
            for words in [figure.stem.replace("_", " ")]
        ],
        command=str(study.get("command") or ""),
        settings=list(_flat(study)),
    )
    return path


def _table(groups: Sequence[Group], best: Sequence[Group]) -> HtmlTable:
    """All configurations with the mean and 95 % interval of each metric."""
    keys = [name for name in _KEYS if any(group.keys.get(name) for group in groups)]
    if len({group.source for group in groups}) == len({group.keys["dataset"] for group in groups}):
        keys = [name for name in keys if name != "source"]  # shown at the head of the page
    metrics = [name for name in _METRICS if any(name in group.means for group in groups)]
    rows = []
    for group in groups:
        on = Cell("yes", "good") if group in best else Cell("")
        means = [group.means.get(name) for name in metrics]
        values = [Cell("-" if mean is None else mean.plus_minus()) for mean in means]
        rows.append((*(_key(group, name) for name in keys), on, *values, Cell(str(group.seeds))))
    columns = [(_titled(name), False) for name in keys]
    columns += [("on the frontier", False), *((_titled(name), True) for name in metrics), ("seeds", True)]
    caption = "Every configuration: mean ± half of the 95 % interval over seeds"
    return HtmlTable(caption, tuple(columns), tuple(rows))


def _key(group: Group, name: str) -> Cell:
    text = group.keys.get(name, "")
    if name in ("dataset", "source") and is_loud(group.source):
        return Cell(marked_source(group.source), "bad")
    if name == "epsilon_status" and text in (NOMINAL, REFUTED):
        return Cell(text + ", not a guarantee", "bad")
    return Cell(text, "good" if name == "epsilon_status" and text == FORMAL else "")


def _verdicts(folder: Path) -> list[HtmlTable]:
    """Tables of `verdicts.json`: counts by data set, then each test; empty without verdicts."""
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
        ends = [math.nan if one[name] is None else one[name] for name in ("value", "low", "high")]
        texts = (difference(*ends), one["setting"], one["compared"])
        rows.append((Cell(claim), Cell(dataset), Cell(verdict, mark), *map(Cell, texts)))
    datasets = list(dict.fromkeys(one["dataset"] for one in found["verdicts"]))
    summary = tuple(
        (Cell(claim), *(Cell(_counted(own.get(name, Counter()))) for name in datasets))
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


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)


def _titled(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))
