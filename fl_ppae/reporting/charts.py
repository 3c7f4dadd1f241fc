"""Charts of a report, as inline SVG.

Each contains its data source, so that a copy of the chart still names it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from numpy import array_split

from fl_ppae.plotting import INK, blank_figure, name_source
from fl_ppae.reporting.drawing import Axes, Series, draw_bars, draw_xy
from fl_ppae.reporting.svg import inline_svg
from fl_ppae.source_label import is_loud, marked_source

_WIDTH, _HEIGHT, _LINE, _ROW = 360, 215, 14, 24  # size of a chart in a report, in points
_STYLE: Any = {
    "figure.dpi": 72,
    "font.family": "DejaVu Sans",  # used to measure the layout; the page sets its own
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Chart:
    """A chart in a report: its title, and the chart as inline SVG."""

    title: str
    svg: Markup


def xy_chart(series: Sequence[Series], axes: Axes, **options: Any) -> Chart:
    """Series over an x axis; `options` are those of `draw_xy`."""
    names = [one.name for one in series]
    columns = _legend_columns(names)
    rows = -(-len(names) // columns) if len(names) > 1 else 0  # the title names a single series
    with rc_context(_STYLE):
        figure = _figure(axes, _HEIGHT + _LINE * rows)
        panel = figure.subplots()
        tips = draw_xy(panel, series, axes, **options)
        if rows:
            figure.legend(
                loc="outside upper left",
                ncols=columns,
                frameon=False,
                fontsize=10,
                borderpad=0,
                columnspacing=1,
                handletextpad=0.4,
                labelspacing=0.3,
            )
        return Chart(axes.title, inline_svg(figure, _description(axes), tips))


def bar_chart(
    values: Mapping[str, float], axes: Axes, *, target: float | None = None, hollow: bool = False
) -> Chart:
    """Horizontal bars with their values; see `draw_bars`."""
    with rc_context(_STYLE):
        figure = _figure(axes, 60 + _ROW * len(values))
        tips = draw_bars(figure.subplots(), values, axes, target=target, hollow=hollow)
        return Chart(axes.title, inline_svg(figure, _description(axes), tips))


def _figure(axes: Axes, height: float) -> Any:
    """A figure for a report, `height` points high without the lines of its data source."""
    lines = textwrap.wrap(f"data: {marked_source(axes.source)}", 60)
    figure = blank_figure((_WIDTH / 72, (height + _LINE * len(lines)) / 72))
    figure.patch.set_visible(False)
    name_source(figure, "\n".join(lines), loud=is_loud(axes.source))
    return figure


def _description(axes: Axes) -> str:
    return f"{axes.title}. {axes.x_label}; {axes.y_label}. Data: {marked_source(axes.source)}"


def _legend_columns(names: Sequence[str]) -> int:
    """How many columns of a legend fit into a report's chart, each as wide as its longest name."""
    for columns in range(len(names), 1, -1):
        longest = [max(map(len, column), default=0) for column in array_split(list(names), columns)]
        if sum(32 + 6 * length for length in longest) <= _WIDTH:
            return columns
    return 1
