"""The trade-off charts of a study's report, with a point for each configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from fl_ppae.privacy.figures import mark
from fl_ppae.reporting.charts import Chart, xy_chart
from fl_ppae.reporting.drawing import Axes, Point, Series
from fl_ppae.studies.summary import Group, sources

_NO_DP = "none"
_BASELINES = {"pixels": "raw pixels", "pca": "PCA", "scatternet": "ScatterNet"}


def frontier_charts(groups: Sequence[Group]) -> list[Chart]:
    """Accuracy against leakage for each data set and classifier, with a series for each privacy level."""
    charts = []
    for name, subset in _by(groups, "dataset", "classifier").items():
        shown = [group for group in subset if {"inversion_ssim", "accuracy"} <= set(group.means)]
        points: dict[str, list[Point]] = {}
        for group in sorted(shown, key=_budget):
            ssim = group.means["inversion_ssim"].value
            points.setdefault(_privacy(group), []).append(_point(group, ssim))
        if shown:
            title = f"Accuracy, leakage and privacy: {name}"
            axes = Axes(title, "inversion SSIM (leakage, -1 to 1)", "accuracy (0 to 1)", sources(subset))
            floors = [floor for group in shown if (floor := group.value("ssim_class_mean")) is not None]
            marks = {"class-mean image": fmean(floors)} if floors else {}
            series = [Series(privacy, tuple(members)) for privacy, members in points.items()]
            charts.append(xy_chart(series, axes, joined=False, upright=marks))
    return charts


def price_charts(groups: Sequence[Group]) -> list[Chart]:
    """Accuracy by guaranteed epsilon for each data set and classifier, with a series for each encoding."""
    charts = []
    for name, subset in _by(groups, "dataset", "classifier").items():
        formal = [group for group in subset if group.formal and group.keys.get("privacy")]
        without = [group for group in subset if group.keys.get("privacy") == _NO_DP]
        priced = [group for group in (*formal, *without) if "accuracy" in group.means]
        levels = sorted({group.keys["privacy"] for group in priced}, key=_level)
        kinds: dict[str, list[Group]] = {}
        for group in priced:
            federated = f", {_hospitals(group)}" if group.trained else ""
            kinds.setdefault(_encoding(group) + federated, []).append(group)
        series = []
        for index, (kind, members) in enumerate(kinds.items()):
            offset = 0.6 * (index - (len(kinds) - 1) / 2) / max(1, len(kinds))  # side by side
            points = [_point(group, levels.index(group.keys["privacy"]) + offset) for group in members]
            series.append(Series(kind, tuple(sorted(points, key=lambda point: point.x))))
        if len(levels) > 1:
            title = f"What a guarantee costs: {name}"
            axes = Axes(title, "epsilon of the encoder updates", "accuracy (0 to 1)", sources(priced))
            ticks = {float(at): "no DP" if level == _NO_DP else level for at, level in enumerate(levels)}
            charts.append(xy_chart(series, axes, joined=False, x_names=ticks))
    return charts


def partition_charts(groups: Sequence[Group]) -> list[Chart]:
    """Accuracy, overall and of the worst hospital, against the heterogeneity of the hospitals."""
    charts = []
    words = {"accuracy": "accuracy", "accuracy_worst": "worst hospital's accuracy"}
    for metric, word in words.items():
        shown = [group for group in groups if {"hellinger", metric} <= set(group.means)]
        series = [
            Series(name, tuple(_point(group, group.means["hellinger"].value, metric) for group in members))
            for name, members in _by(shown, "setting", "noise", "hospitals").items()
        ]
        if series:
            title = f"Heterogeneous hospitals: {word}"
            x_label = "Hellinger distance of label mixes (0 to 1)"
            axes = Axes(title, x_label, f"{word} (0 to 1)", sources(shown))
            charts.append(xy_chart(series, axes, joined=False))
    return charts


def _point(group: Group, x: float, metric: str = "accuracy") -> Point:
    mean = group.means[metric]
    words = (_encoding(group), group.keys.get("scope"), group.keys.get("partition"), _hospitals(group))
    note = ", ".join(word for word in words if word and word != "none")
    low, high = (None, None) if mean.half is None else (mean.low, mean.high)
    return Point(x, mean.value, low, high, f"({note})")


def _by(groups: Iterable[Group], *names: str) -> dict[str, list[Group]]:
    """Configurations grouped by these columns, whose values in words are the groups' names."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        words = [_hospitals(group) if name == "hospitals" else group.keys.get(name, "") for name in names]
        found.setdefault(", ".join(filter(None, words)), []).append(group)
    return found


def _encoding(group: Group) -> str:
    """The encoder or baseline in words."""
    return _BASELINES.get(group.encoder, group.encoder)


def _hospitals(group: Group) -> str:
    count = group.keys["hospitals"]
    return f"{count} hospital{'s' if count != '1' else ''}"


def _privacy(group: Group) -> str:
    """The privacy level of an encoder in words."""
    level = group.keys["privacy"]
    if not group.trained:
        return "baseline"
    doubt = mark(group.keys["epsilon_status"], brief=True)
    return "no DP" if level == _NO_DP else f"epsilon {level}" + (f",{doubt}" if doubt else "")


def _budget(group: Group) -> tuple[bool, float, bool]:
    return not group.trained, _level(group.keys["privacy"]), not group.formal


def _level(privacy: str) -> float:
    return math.inf if privacy == _NO_DP else float(privacy)
