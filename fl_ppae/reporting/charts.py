"""Charts of a report as inline SVG: they scale, print sharply, and show a value under the pointer.

Series differ by colour (Okabe-Ito), marker and dash, never by colour alone. Each chart names its data
source in itself, so that a copy of it still does. Text is escaped by the XML writer.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from fl_ppae.plotting import OKABE_ITO
from fl_ppae.source_label import is_loud, marked_source

_WIDTH, _PLOT_HEIGHT = 400.0, 170.0
_LEFT, _RIGHT, _LINE = 62.0, 14.0, 14.0
_CHARACTER = 6.0  # pixels of an average one at 11 px
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_INK, _GRID, _LOUD, _TARGET = "#222222", "#dddddd", "#b00000", OKABE_ITO[5]
_COLOURS = tuple(colour for colour in OKABE_ITO if colour not in ("#F0E442", _TARGET))  # yellow: too pale


@dataclass(frozen=True)
class Point:
    """A point, its 95 % interval on the y axis if it has one, and what else to say of it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points under one name; drawn in order."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Axes:
    """What a chart says of itself: title, axis labels with their units, and its data source."""

    title: str
    x_label: str
    y_label: str
    source: str


def xy_chart(
    series: Sequence[Series],
    axes: Axes,
    *,
    joined: bool = True,
    target: float | None = None,
    from_zero: bool = False,
    whole: tuple[int, int] | None = None,
    x_names: Mapping[float, str] | None = None,
    upright: Mapping[str, float] | None = None,
) -> Markup:
    """Series over an axis, joined by lines or not; `target` is a horizontal line.

    `from_zero`: the y axis starts there. `whole`: the x axis goes from here to there, with ticks at whole
    numbers. `x_names`: named ticks, at these places. `upright`: vertical lines, named.
    """
    points = [point for one in series for point in one.points]
    heights = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    marks = upright or {}
    x_ticks = sorted(x_names) if x_names else _ticks([*(point.x for point in points), *marks.values()])
    if whole:
        x_ticks = [tick for tick in _ticks(map(float, whole), whole=True) if whole[0] <= tick <= whole[1]]
    also = [*([] if target is None else [target]), *([0.0] if from_zero else [])]
    y_ticks = _ticks([*heights, *also])
    if from_zero:
        y_ticks = [tick for tick in y_ticks if tick >= 0]
    x_range = (float(whole[0]), float(whole[1])) if whole else (min(x_ticks), max(x_ticks))
    if x_names:
        x_range = (x_range[0] - 0.5, x_range[1] + 0.5)
    names = [one.name for one in series]
    svg, frame = _frame(axes, names, (x_ticks, x_range), y_ticks, x_names or {}, joined=joined)
    if target is not None:
        y = frame.y(target)
        _add(svg, "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, stroke=_TARGET, dash="5 3", width=1.5)
        _text(svg, f"target {target:g}", _WIDTH - _RIGHT - 2, y - 4, anchor="end", colour=_TARGET, size=10)
    for name, value in marks.items():
        x = frame.x(value)
        _add(svg, "line", x1=x, x2=x, y1=frame.top, y2=frame.top + _PLOT_HEIGHT, stroke=_TARGET, dash="5 3")
        left = x > _WIDTH / 2
        _text(
            svg,
            name,
            x - 4 if left else x + 4,
            frame.top + 10,
            anchor="end" if left else "start",
            colour=_TARGET,
            size=10,
        )
    for index, one in enumerate(series):
        places = [(frame.x(point.x), frame.y(point.y)) for point in one.points]
        if joined and len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            _add(svg, "polyline", points=path, fill="none", dash=_dash(index), stroke=_colour(index), width=2)
        for point, (x, y) in zip(one.points, places, strict=True):
            if point.low is not None and point.high is not None:
                low, high = frame.y(point.low), frame.y(point.high)
                _add(svg, "line", x1=x, x2=x, y1=low, y2=high, stroke=_colour(index), width=1.5)
            where = (x_names or {}).get(round(point.x)) or f"{axes.x_label} {_short(point.x)}"
            _marker(svg, index, x, y, f"{one.name}, {where}: {_interval(point)} {point.note}".strip())
    return _finished(svg)


def bar_chart(
    values: Mapping[str, float], axes: Axes, *, target: float | None = None, hollow: bool = False
) -> Markup:
    """Horizontal bars with their values; `hollow` ones are numbers that nothing guarantees.

    `axes.y_label` is not drawn: the bars have names.
    """
    names = list(values)
    left = min(150.0, 14 + _CHARACTER * max(map(len, names)))
    top, row = 12.0, 24.0
    bottom = top + row * len(names)
    largest = max([*values.values(), target or 0, 1e-12]) * 1.12
    ticks = [tick for tick in _ticks([0, largest]) if tick <= largest]
    svg = _canvas(axes, bottom + 2 * _LINE + 8)

    def x(value: float) -> float:
        return left + (_WIDTH - _RIGHT - left) * value / largest

    for tick in ticks:
        _add(svg, "line", x1=x(tick), x2=x(tick), y1=top, y2=bottom, stroke=_GRID, width=1)
        _text(svg, _short(tick), x(tick), bottom + _LINE, anchor="middle")
    for index, (name, value) in enumerate(values.items()):
        y = top + row * index + 4
        style = {"fill": "#ffffff", "stroke": _INK, "dash": "4 2"} if hollow else {"fill": OKABE_ITO[0]}
        tip = f"{name}: {value:.3f}" + (f", target {target:g}" if target is not None else "")
        bar = _add(svg, "rect", x=left, y=y, w=max(x(value) - left, 0.5), h=row - 8, tip=tip, **style)
        _tip(bar, tip)
        _text(svg, name, left - 6, y + 12, anchor="end")
        ink = _INK if hollow else "#ffffff"
        inside = x(value) - left > 60
        _text(
            svg,
            f"{value:.2f}",
            x(value) - 6 if inside else x(value) + 6,
            y + 12,
            anchor="end" if inside else "start",
            colour=ink if inside else _INK,
            weight="bold",
        )
    if target is not None:
        _add(
            svg,
            "line",
            x1=x(target),
            x2=x(target),
            y1=top - 4,
            y2=bottom,
            stroke=_TARGET,
            dash="5 3",
            width=2,
        )
        _text(svg, f"target {target:g}", x(target), top - 2, anchor="middle", colour=_TARGET, size=10)
    _text(svg, axes.x_label, (left + _WIDTH - _RIGHT) / 2, bottom + 2 * _LINE + 2, anchor="middle")
    _source(svg, axes.source, bottom + 3 * _LINE + 8)
    return _finished(svg)


@dataclass(frozen=True)
class _Frame:
    """Where data lie in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    top: float

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + 8 + (_WIDTH - _RIGHT - _LEFT - 16) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + _PLOT_HEIGHT * (high - value) / (high - low)


def _frame(
    axes: Axes,
    names: Sequence[str],
    x_axis: tuple[Sequence[float], tuple[float, float]],
    y_ticks: Sequence[float],
    x_names: Mapping[float, str],
    *,
    joined: bool,
) -> tuple[ElementTree.Element, _Frame]:
    """The canvas with legend, grid, ticks, labels and source."""
    legend, x, y = [], 4.0, 12.0
    shown = names if len(names) > 1 else []  # one series is what the title says
    for name in shown:
        wide = 34 + _CHARACTER * len(name)
        if x > 4 and x + wide > _WIDTH:
            x, y = 4.0, y + _LINE + 2
        legend.append((x, y))
        x += wide
    top = y + (12 if shown else 0)
    bottom = top + _PLOT_HEIGHT
    x_ticks, x_range = x_axis
    frame = _Frame(_wide(x_range), _wide((min(y_ticks), max(y_ticks))), top)
    svg = _canvas(axes, bottom + 2 * _LINE + 10)
    for index, (name, (x, y)) in enumerate(zip(shown, legend, strict=True)):
        if joined:
            ends = {"x1": x, "x2": x + 22, "y1": y - 4, "y2": y - 4}
            _add(svg, "line", **ends, stroke=_colour(index), dash=_dash(index), width=2)
        _marker(svg, index, x + 11, y - 4, "")
        _text(svg, name, x + 27, y)
    for tick in y_ticks:
        y = frame.y(tick)
        _add(svg, "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, stroke=_GRID, width=1)
        _text(svg, _short(tick), _LEFT - 6, y + 4, anchor="end")
    for tick in x_ticks:
        _text(svg, x_names.get(tick) or _short(tick), frame.x(tick), bottom + _LINE + 2, anchor="middle")
    _text(svg, axes.x_label, (_LEFT + _WIDTH - _RIGHT) / 2, bottom + 2 * _LINE + 4, anchor="middle")
    middle = (top + bottom) / 2
    label = _text(svg, axes.y_label, 11, middle, anchor="middle", size=10)
    label.set("transform", f"rotate(-90 11 {middle:.1f})")
    _source(svg, axes.source, bottom + 3 * _LINE + 10)
    return svg, frame


def _canvas(axes: Axes, body: float) -> ElementTree.Element:
    height = body + 8 + _LINE * len(_source_lines(axes.source))
    svg = ElementTree.Element(
        "svg", {"class": "chart", "role": "img", "viewBox": f"0 0 {_WIDTH:g} {height:g}"}
    )
    svg.set("aria-label", f"{axes.title}. {axes.x_label}; {axes.y_label}. Data: {marked_source(axes.source)}")
    return svg


def _source_lines(source: str) -> list[str]:
    return textwrap.wrap(f"data: {marked_source(source)}", 66)


def _source(svg: ElementTree.Element, source: str, y: float) -> None:
    loud = is_loud(source)
    for index, line in enumerate(_source_lines(source)):
        _text(
            svg,
            line,
            _WIDTH / 2,
            y + 4 + _LINE * index,
            anchor="middle",
            size=10,
            colour=_LOUD if loud else "#555555",
            weight="bold" if loud else "normal",
        )


_NAMES = {"width": "stroke-width", "dash": "stroke-dasharray", "w": "width", "h": "height"}


def _add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    written = {
        _NAMES.get(key, key): f"{value:.1f}" if isinstance(value, float) else str(value)
        for key, value in attributes.items()
        if value != "" and key != "tip"
    }
    return ElementTree.SubElement(parent, tag, written)


def _text(
    parent: ElementTree.Element,
    text: str,
    x: float,
    y: float,
    *,
    anchor: str = "start",
    size: int = 11,
    colour: str = _INK,
    weight: str = "normal",
) -> ElementTree.Element:
    element = _add(parent, "text", x=float(x), y=float(y), fill=colour)
    element.set("font-size", str(size))
    element.set("text-anchor", anchor)
    element.set("font-weight", weight)
    element.text = text
    return element


def _marker(svg: ElementTree.Element, index: int, x: float, y: float, tip: str) -> None:
    """A circle, square, triangle or diamond, filled, then hollow; an invisible disc is easier to point at."""
    group = ElementTree.SubElement(svg, "g")
    shape = index % 4
    fill = "#ffffff" if index // 4 % 2 else _colour(index)
    style = {"fill": fill, "stroke": _colour(index), "width": 1.5}
    if shape == 0:
        _add(group, "circle", cx=x, cy=y, r=4, **style)
    elif shape == 1:
        _add(group, "rect", x=x - 3.5, y=y - 3.5, w=7, h=7, **style)
    else:
        corners = ((0, -5), (4.5, 3.5), (-4.5, 3.5)) if shape == 2 else ((0, -5), (5, 0), (0, 5), (-5, 0))
        path = " ".join(f"{x + across:.1f},{y + down:.1f}" for across, down in corners)
        _add(group, "polygon", points=path, **style)
    if tip:
        disc = _add(group, "circle", cx=x, cy=y, r=10, fill="#ffffff")
        disc.set("fill-opacity", "0")
        _tip(group, tip)


def _tip(element: ElementTree.Element, text: str) -> None:
    """Shown under the pointer: by the browser, or sooner by the page's script."""
    element.set("data-tip", text)
    element.insert(0, title := ElementTree.Element("title"))
    title.text = text


def _finished(svg: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _dash(index: int) -> str:
    return _DASHES[index % len(_DASHES)]


def _ticks(values: Iterable[float], *, whole: bool = False) -> list[float]:
    """A few round numbers that enclose the values."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = (low - abs(low) / 10, high + abs(high) / 10) if low else (0.0, 1.0)
    return [float(tick) for tick in MaxNLocator(8 if whole else 4, integer=whole).tick_values(low, high)]


def _wide(span: tuple[float, float]) -> tuple[float, float]:
    """A range that is not empty."""
    low, high = span
    return span if high > low else (low - 1, high + 1)


def _short(value: float) -> str:
    return f"{value + 0.0:.4g}"


def _interval(point: Point) -> str:
    value = f"{point.y:.4g}"
    if point.low is None or point.high is None:
        return value
    return f"{value} (95 % interval {point.low:.4g} to {point.high:.4g})"
