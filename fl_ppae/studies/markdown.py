"""A study's results as Markdown, `results.md`: for a page of documentation, a paper, an issue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fl_ppae.studies.statistics import Mean
from fl_ppae.studies.summary import Group

PAPER_COLUMNS = ("accuracy", "auc", "cosine", "cosine_centred", "inversion_ssim", "epsilon")
PARTITION_COLUMNS = (
    "accuracy",
    "accuracy_hospitals",
    "accuracy_worst",
    "epsilon_min",
    "epsilon_max",
    "hellinger",
)
_TITLES = {
    "accuracy_hospitals": "own mix: mean",
    "accuracy_worst": "own mix: worst",
    "auc": "AUC",
    "inversion_ssim": "inversion SSIM",
    "epsilon": "epsilon (encoder updates)",
}


def results(
    document: dict[str, Any],
    groups: Sequence[Group],
    keys: Sequence[str],
    metrics: Sequence[str],
    verdicts: Sequence[str],
) -> str:
    """Machine and time, one table a data source, then the lines of `verdicts`."""
    machine = document["machine"]
    lines = [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {document.get('workers', 0)} workers of "
        f"one thread; {document['seconds'] / 60:.0f} minutes, together. {document['cells']} cells, "
        f"{len(document['failed'])} failed. Means over seeds with 95 % t-intervals.",
        "",
    ]
    for source in dict.fromkeys(group.keys["source"] for group in groups):
        own = [group for group in groups if group.keys["source"] == source]
        loud = " - NOT REAL DATA" if own[0].keys["stand_in"] == "true" else ""
        titles = [*keys, "seeds", *(_TITLES.get(name, name.replace("_", " ")) for name in metrics)]
        lines += [f"### {source}{loud}", "", _line(titles), _line("---" for _ in titles)]
        lines += [
            _line([*(group.keys[key] for key in keys), str(group.seeds), *_cells(group, metrics)])
            for group in own
        ]
        lines.append("")
        floors = own[0].means.get("ssim_mean_image"), own[0].means.get("ssim_class_mean")
        if floors[0] is not None and floors[1] is not None:
            lines += [
                f"Floors of the inversion SSIM: mean image {floors[0].value:.3f}, class-mean image "
                f"{floors[1].value:.3f}.",
                "",
            ]
    return "\n".join([*lines, *verdicts])


def _cells(group: Group, metrics: Sequence[str]) -> list[str]:
    nominal = group.keys["epsilon_status"] == "nominal"
    texts = []
    for metric in metrics:
        mean = group.means.get(metric)
        mark = " nominal" if nominal and metric.startswith("epsilon") and mean is not None else ""
        texts.append("" if mean is None else f"{_mean(mean)}{mark}")
    return texts


def _mean(mean: Mean) -> str:
    if math.isnan(mean.low) or mean.high - mean.low < 1e-3:
        return f"{mean.value:.3f}"
    return f"{mean.value:.3f} ± {mean.high - mean.value:.3f}"


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
