"""Figures of a run, as PNG. Each names its data source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fl_ppae.plotting import figure_file, show_image
from fl_ppae.reporting.drawing import draw_bars, draw_xy
from fl_ppae.reporting.encoding_maps import as_maps
from fl_ppae.reporting.run_charts import budgets_of, round_panels
from fl_ppae.runs.stored import StoredRun, open_run

_IMAGES_SHOWN = 8
_CHANNELS_SHOWN = 3


def write_figures(run_directory: Path) -> None:
    """Draw `figures/rounds.png` and `figures/epsilon.png` from the files of a run."""
    run = open_run(run_directory)
    if (run_directory / "rounds.csv").is_file():
        plot_rounds(run, run_directory / "figures" / "rounds.png")
    if budgets_of(run).spent:
        plot_epsilon(run, run_directory / "figures" / "epsilon.png")


def plot_rounds(run: StoredRun, path: Path) -> None:
    """Accuracy, epsilon, reconstruction loss and leakage over the rounds."""
    panels = round_panels(run)
    with figure_file(path, "Over the rounds", run.data_label, (14, 7)) as figure:
        places = list(figure.subplots(2, 3).flat)
        for panel, place in zip(panels, places, strict=False):
            place.set_title(panel.axes.title, pad=18)  # leaves room for the label of a target
            if panel.series:
                draw_xy(place, panel.series, panel.axes, **panel.options)
            else:
                place.text(0.5, 0.5, "not measured in this run", ha="center", va="center")
                place.set_axis_off()
            if len(panel.series) > 1:
                place.legend(frameon=False)
        for place in places[len(panels) :]:
            place.remove()


def plot_epsilon(run: StoredRun, path: Path) -> None:
    """The epsilon that each hospital has spent on encoder updates, and the target."""
    budgets = budgets_of(run)
    height = 1.6 + 0.4 * len(budgets.spent)
    with figure_file(path, "Privacy spent", run.data_label, (8, height)) as figure:
        draw_bars(figure.subplots(), budgets.spent, budgets.axes, **budgets.options)


def plot_encodings(
    images: np.ndarray[Any, Any], encodings: np.ndarray[Any, Any], path: Path, source_label: str
) -> None:
    """Images (N, C, H, W) with values 0 to 1, each above the first channels of its encoding (N, *shape)."""
    count = min(len(images), _IMAGES_SHOWN)
    maps = as_maps(encodings[:count])[:, :_CHANNELS_SHOWN]
    height = 1 + maps.shape[1]
    size = (1.2 * count, 1.2 * height + 0.6)
    with figure_file(path, "Images and their encodings", source_label, size) as figure:
        grid = figure.subplots(height, count, squeeze=False)
        for column in range(count):
            show_image(grid[0, column], images[column])
            for row, values in enumerate(maps[column], start=1):
                grid[row, column].imshow(values, cmap="cividis")
                grid[row, column].set(xticks=[], yticks=[])
        for row in range(height):
            name = "image" if row == 0 else "encoding" if height == 2 else f"channel {row}"
            grid[row, 0].set_ylabel(name)
