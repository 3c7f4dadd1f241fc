"""Figures of a run, in colours that colour-blind eyes tell apart. Each names its data source."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fl_ppae.files import read_json
from fl_ppae.plotting import OKABE_ITO, figure_file
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.runs.status import summary_so_far
from fl_ppae.source_label import data_label

_LEAKAGE = ("cosine", "cosine_centred", "cosine_mismatched", "retrieval_top1")
_IMAGES_SHOWN = 8
_CHANNELS_SHOWN = 3


def write_figures(run_directory: Path) -> None:
    """Draw what a run's own files tell: `figures/rounds.png` and `figures/epsilon.png`."""
    summary = summary_so_far(run_directory)
    values = read_json(run_directory / "config.json")["config"]
    source_label = data_label(summary)
    scope = SCOPES[values["dp-scope"]]
    target = float(values["target-epsilon"]) if scope.noised else None
    figures = run_directory / "figures"
    if (run_directory / "rounds.csv").is_file():
        path = figures / "rounds.png"
        plot_rounds(run_directory / "rounds.csv", path, source_label, target, formal=scope.formal)
    spent = {name: value for name, value in (summary.get("epsilon") or {}).items() if value is not None}
    if spent:
        plot_epsilon(spent, target, figures / "epsilon.png", source_label, formal=scope.formal)


def plot_rounds(
    rounds_csv: Path, path: Path, source_label: str, target_epsilon: float | None, *, formal: bool
) -> None:
    """Accuracy, epsilon, reconstruction loss and leakage over the rounds, from `rounds.csv`.

    `target_epsilon` is None, and so no epsilon is drawn, in a run without differential privacy.
    """
    with rounds_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with figure_file(path, "Over the rounds", source_label, (10, 7)) as figure:
        quality, privacy, loss, leakage = figure.subplots(2, 2, sharex=True).flat
        _lines(quality, rows, ("accuracy", "auc"), "on the test split (0 to 1)")
        _lines(privacy, rows, ("epsilon_max",), _epsilon_label(formal))
        if target_epsilon is not None:
            _target(privacy, target_epsilon)
        _lines(loss, rows, ("reconstruction_loss",), "mean squared error (pixels 0 to 1)")
        _lines(leakage, rows, _LEAKAGE, "leakage (share or similarity)")
        for axes in (loss, leakage):
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plot_epsilon(
    epsilon: Mapping[str, float], target: float | None, path: Path, source_label: str, *, formal: bool
) -> None:
    """What each hospital spent on its encoder updates, against the target."""
    with figure_file(path, "Privacy spent", source_label, (8, 1.6 + 0.4 * len(epsilon))) as figure:
        axes = figure.subplots()
        bars = axes.barh(list(epsilon), list(epsilon.values()), color=OKABE_ITO[0] if formal else "#666666")
        labels = "%.2f" if formal else "%.2f nominal"
        axes.bar_label(bars, fmt=labels, label_type="center", color="white", weight="bold")
        axes.invert_yaxis()
        axes.set_xlabel(_epsilon_label(formal))
        if target is not None:
            axes.axvline(target, color=OKABE_ITO[5], linestyle="--", label=f"target {target:g}")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def plot_encodings(
    images: np.ndarray[Any, Any], encodings: np.ndarray[Any, Any], path: Path, source_label: str
) -> None:
    """Images (N, C, H, W) in 0 to 1, each above its encoding (N, *shape): the first channels of a map."""
    count = min(len(images), _IMAGES_SHOWN)
    panels = [_panels(encoding) for encoding in encodings[:count]]
    height = 1 + len(panels[0])
    with figure_file(
        path, "Images and their encodings", source_label, (1.2 * count, 1.2 * height + 0.6)
    ) as figure:
        grid = figure.subplots(height, count, squeeze=False)
        for column, (image, maps) in enumerate(zip(images[:count], panels, strict=True)):
            pixels = np.clip(np.moveaxis(image, 0, -1), 0, 1)
            grid[0, column].imshow(
                pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1
            )
            for row, values in enumerate(maps, start=1):
                grid[row, column].imshow(values, cmap="cividis")
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
        for row in range(height):
            name = "image" if row == 0 else "encoding" if height == 2 else f"channel {row}"
            grid[row, 0].set_ylabel(name)


def _panels(encoding: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """An encoding as two-dimensional pictures: a vector folded to a near-square, padded with gaps."""
    if encoding.ndim == 3:
        return list(encoding[:_CHANNELS_SHOWN])
    flat = encoding.ravel().astype(float)
    width = int(np.ceil(np.sqrt(flat.size)))
    padded = np.full(width * int(np.ceil(flat.size / width)), np.nan)
    padded[: flat.size] = flat
    return [padded.reshape(-1, width)]


def _lines(axes: Any, rows: Sequence[Mapping[str, str]], columns: Sequence[str], label: str) -> None:
    """One line per column, over the rounds in which it has a value."""
    styles = zip(columns, OKABE_ITO, ("o-", "s--", "^-.", "D:"), strict=False)
    for column, colour, style in styles:
        points = [(int(row["round"]), float(row[column])) for row in rows if row.get(column)]
        if points:
            axes.plot(
                *zip(*points, strict=True), style, color=colour, label=column.replace("_", " "), markersize=4
            )
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    else:
        axes.text(0.5, 0.5, "not measured in this run", ha="center", va="center", transform=axes.transAxes)


def _target(axes: Any, epsilon: float) -> None:
    axes.axhline(epsilon, color=OKABE_ITO[5], linestyle="--", label=f"target {epsilon:g}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small", loc="lower right")


def _epsilon_label(formal: bool) -> str:
    return "epsilon (encoder updates)" + ("" if formal else "\nnominal, not a guarantee")
