"""Series and bars drawn on the axes of a matplotlib figure.

Series differ by colour (Okabe-Ito), marker and dash, never by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from fl_ppae.plotting import INK, OKABE_ITO, TARGET

_GRID = "#dddddd"
_COLOURS = tuple(colour for colour in OKABE_ITO if colour not in ("#F0E442", TARGET))  # yellow is too pale
_STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))


@dataclass(frozen=True)
class Point:
    """A point, its 95 % interval on the y axis if it has one, and a note for its tooltip."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Named points, drawn in order."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Axes:
    """A chart's title, axis labels with units, and data source."""

    title: str
    x_label: str
    y_label: str
    source: str


def draw_xy(
    panel: Any,
    series: Sequence[Series],
    axes: Axes,
    *,
    joined: bool = True,
    target: float | None = None,
    from_zero: bool = False,
    whole: tuple[int, int] | None = None,
    x_names: Mapping[float, str] | None = None,
    upright: Mapping[str, float] | None = None,
) -> dict[str, list[str]]:
    """Draw series, joined by lines or not; returns each point's tooltip, by the gid of its series.

    `target`: a horizontal line. `from_zero`: the y axis starts at 0. `whole`: first and last value of the x
    axis, which has ticks at whole numbers. `x_names`: ticks by position. `upright`: vertical lines by name.
    Points that are not finite are left out.
    """
    shown = [
        (one.name, [point for point in one.points if math.isfinite(point.x) and math.isfinite(point.y)])
        for one in series
    ]
    points = [point for _, finite in shown for point in finite]
    marks, names = upright or {}, x_names or {}
    x_ticks = sorted(names) or _ticks([*(point.x for point in points), *marks.values()])
    low, high = (x_ticks[0] - 0.5, x_ticks[-1] + 0.5) if names else (x_ticks[0], x_ticks[-1])
    if whole:
        low, high = whole if whole[1] > whole[0] else (whole[0] - 1, whole[1] + 1)
        rounds = MaxNLocator(8, integer=True).tick_values(low, high)
        x_ticks = [tick for tick in rounds if whole[0] <= tick <= whole[1]]
    heights = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    y_ticks = _ticks([*heights, *([] if target is None else [target]), *([0.0] if from_zero else [])])
    y_ticks = [tick for tick in y_ticks if tick >= 0 or not from_zero]
    _grid(panel, "y", axes)
    edge = 0.025 * (high - low)
    panel.set_xlim(low - edge, high + edge)
    panel.set_ylim(y_ticks[0], y_ticks[-1])
    panel.set_xticks(x_ticks, [names.get(tick) or _number(tick) for tick in x_ticks])
    panel.set_yticks(y_ticks, [_number(tick) for tick in y_ticks])
    if target is not None:
        panel.axhline(target, color=TARGET, linestyle="--", linewidth=1.5)
        _label(panel, f"target {target:g}", (low, target), (0, 3), color=TARGET)
    for name, x in marks.items():
        panel.axvline(x, color=TARGET, linestyle="--", linewidth=1)
        offset = -4 if x > (low + high) / 2 else 4
        _label(
            panel, name, (x, y_ticks[-1]), (offset, -10), color=TARGET, ha="right" if offset < 0 else "left"
        )
    tips: dict[str, list[str]] = {}
    for index, (name, finite) in enumerate(shown):
        _draw_series(panel, index, name, finite, joined=joined)
        if finite:
            tips[f"series-{index}"] = [_tip(name, point, axes, names) for point in finite]
    return tips


def _draw_series(panel: Any, index: int, name: str, points: Sequence[Point], *, joined: bool) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    marker, dash = _STYLES[index % len(_STYLES)]
    intervals = [
        (point.x, point.low, point.high)
        for point in points
        if point.low is not None and point.high is not None
    ]
    if intervals:
        panel.vlines(*zip(*intervals, strict=True), color=colour, linewidth=1.5)
    panel.plot(
        [point.x for point in points],
        [point.y for point in points],
        marker=marker,
        linestyle=dash if joined else "none",
        color=colour,
        linewidth=2,
        markersize=6,
        markerfacecolor="white" if index // len(_STYLES) % 2 else colour,
        markeredgewidth=1.5,
        label=name,
        gid=f"series-{index}",
        clip_on=False,
        zorder=3,
    )


def draw_bars(
    panel: Any, values: Mapping[str, float], axes: Axes, *, target: float | None = None, hollow: bool = False
) -> dict[str, list[str]]:
    """Draw horizontal bars with their values; returns each bar's tooltip, by its gid.

    `hollow`: nothing guarantees the values. `axes.y_label` is not drawn, because the bars are named.
    """
    largest = max([*values.values(), target or 0, 1e-12]) * 1.12
    style = {"color": "white", "edgecolor": INK, "linestyle": "--"} if hollow else {"color": OKABE_ITO[0]}
    bars = panel.barh(range(len(values)), list(values.values()), height=0.7, **style)
    _grid(panel, "x", axes)
    panel.set_ylabel("")
    panel.set_yticks(range(len(values)), [name if len(name) < 25 else f"{name[:23]}…" for name in values])
    panel.set_ylim(len(values) - 0.5, -0.5)
    panel.set_xlim(0, largest)
    ticks = [tick for tick in _ticks([0, largest]) if tick <= largest]
    panel.set_xticks(ticks, [_number(tick) for tick in ticks])
    tips = {}
    for place, ((name, value), bar) in enumerate(zip(values.items(), bars, strict=True)):
        bar.set_gid(f"bar-{place}")
        tips[f"bar-{place}"] = [f"{name}: {value:.3f}" + ("" if target is None else f", target {target:g}")]
        inside = value > largest / 5
        ink = "white" if inside and not hollow else INK
        offset, side = (-6, "right") if inside else (6, "left")
        _label(
            panel, f"{value:.2f}", (value, place), (offset, 0), color=ink, ha=side, va="center", weight="bold"
        )
    if target is not None:
        panel.axvline(target, color=TARGET, linestyle="--", linewidth=2)
        _label(panel, f"target {target:g}", (target, -0.5), (0, 3), color=TARGET, ha="center")
    return tips


def _grid(panel: Any, axis: str, axes: Axes) -> None:
    panel.set_xlabel(axes.x_label)
    panel.set_ylabel(axes.y_label, fontsize=10)
    panel.patch.set_visible(False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, pad=6)
    panel.grid(axis=axis, color=_GRID)
    panel.set_axisbelow(True)


def _label(
    panel: Any, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    panel.annotate(
        text, place, offset, textcoords="offset points", fontsize=10, annotation_clip=False, **style
    )


def _ticks(values: Iterable[float]) -> list[float]:
    """A few round numbers that enclose the values."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = (low - abs(low) / 10, high + abs(high) / 10) if low else (0.0, 1.0)
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high)]


def _number(value: float) -> str:
    return f"{value + 0.0:.4g}"


def _tip(name: str, point: Point, axes: Axes, x_names: Mapping[float, str]) -> str:
    where = x_names.get(round(point.x)) or f"{axes.x_label} {_number(point.x)}"
    interval = (
        ""
        if point.low is None or point.high is None
        else (f" (95 % interval {point.low:.4g} to {point.high:.4g})")
    )
    return f"{name}, {where}: {point.y:.4g}{interval} {point.note}".strip()
