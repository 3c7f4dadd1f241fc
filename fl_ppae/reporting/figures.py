"""Figures of a run, in colours that colour-blind eyes tell apart. Each names its data source."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from fl_ppae.files import read_json
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.run_status import data_label, is_loud, marked_source, summary_so_far

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_HATCHES = ("", "///", "...")
_LEAKAGE = ("cosine", "cosine_centred", "cosine_mismatched", "retrieval_top1")
_IMAGES_SHOWN = 8
_CHANNELS_SHOWN = 3
_DOTS_PER_INCH = 150
_BARS = 40


def write_figures(run_directory: Path) -> None:
    """Draw what a run's own files tell: `figures/rounds.png` and `figures/epsilon.png`."""
    summary = summary_so_far(run_directory)
    values = read_json(run_directory / "config.json")["config"]
    source_label = data_label(summary)
    scope = SCOPES[values["dp-scope"]]
    target = float(values["target-epsilon"]) if scope.noises_encoder else None
    figures = run_directory / "figures"
    if (run_directory / "rounds.csv").is_file():
        path = figures / "rounds.png"
        plot_rounds(run_directory / "rounds.csv", path, source_label, target, formal=scope.formal)
    spent = {name: value for name, value in (summary.get("epsilon") or {}).items() if value is not None}
    if spent:
        plot_epsilon(spent, target, figures / "epsilon.png", source_label, formal=scope.formal)


def plot_label_distributions(
    labels_per_hospital: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    source_label: str,
    path: Path,
) -> None:
    """How many train records of each class each hospital holds, as stacked bars."""
    counts = np.array(
        [
            np.bincount(np.asarray(labels, int), minlength=len(class_names))
            for labels in labels_per_hospital.values()
        ]
    )
    # Up to 40 hospitals a name and a bar of 0.4 inches each; then the bars get thin, and 40 have a name.
    height = 1.6 + 0.4 * min(len(counts), _BARS)
    with _figure(path, "Train records by class", source_label, (9, height)) as figure:
        axes = figure.subplots()
        left = np.zeros(len(counts))
        for index, name in enumerate(class_names):
            lap, colour = divmod(index, len(OKABE_ITO))
            axes.barh(
                list(labels_per_hospital),
                counts[:, index],
                left=left,
                label=name,
                color=OKABE_ITO[colour],
                hatch=_HATCHES[lap % len(_HATCHES)],
                edgecolor="white",
                linewidth=0.5 if len(counts) <= _BARS else 0,
            )
            left += counts[:, index]
        axes.invert_yaxis()
        if len(counts) > _BARS:
            axes.yaxis.set_major_locator(FixedLocator(range(0, len(counts), -(-len(counts) // _BARS))))
        axes.set_xlabel("train records")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")


def plot_rounds(
    rounds_csv: Path, path: Path, source_label: str, target_epsilon: float | None, *, formal: bool
) -> None:
    """Accuracy, epsilon, reconstruction loss and leakage over the rounds, from `rounds.csv`.

    `target_epsilon` is None, and so no epsilon is drawn, in a run without differential privacy.
    """
    with rounds_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with _figure(path, "Over the rounds", source_label, (10, 7)) as figure:
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
    with _figure(path, "Privacy spent", source_label, (8, 1.6 + 0.4 * len(epsilon))) as figure:
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
    with _figure(
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


def plot_image_rows(
    rows: Mapping[str, np.ndarray[Any, Any]], path: Path, title: str, source_label: str
) -> None:
    """Rows of images (N, C, H, W) in 0 to 1, one under the other, each with its name."""
    count = len(next(iter(rows.values())))
    with _figure(path, title, source_label, (1.0 * count + 1.6, 1.0 * len(rows) + 0.9)) as figure:
        grid = figure.subplots(len(rows), count, squeeze=False)
        for (name, images), line in zip(rows.items(), grid, strict=True):
            for image, axes in zip(images, line, strict=True):
                pixels = np.clip(np.moveaxis(image, 0, -1), 0, 1)
                axes.imshow(
                    pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1
                )
                axes.set_xticks([])
                axes.set_yticks([])
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")


def plot_extraction(
    queries: Sequence[int],
    by_queries: Mapping[str, Sequence[float]],
    own_accuracy: float,
    path: Path,
    source_label: str,
) -> None:
    """A surrogate's agreement and accuracy (0 to 1) by number of queries, and the original's accuracy."""
    with _figure(path, "Classifier copied through its answers", source_label, (6, 4)) as figure:
        axes = figure.subplots()
        for (name, values), colour, style in zip(by_queries.items(), OKABE_ITO, ("o-", "s--"), strict=False):
            axes.plot(queries, values, style, color=colour, label=f"surrogate's {name}")
        axes.axhline(own_accuracy, color=OKABE_ITO[5], linestyle=":", label="the classifier's accuracy")
        axes.set_xscale("log")
        axes.set_xlabel("queries")
        axes.set_ylabel("share of test images (0 to 1)")
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")


def plot_roc(
    curves: Mapping[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    path: Path,
    title: str,
    source_label: str,
) -> None:
    """False- and true-positive rates of each attacker, both on log axes, beside guessing."""
    with _figure(path, title, source_label, (5.5, 5)) as figure:
        axes = figure.subplots()
        styles = ("-", "--", "-.", ":")
        for index, (name, (false, true)) in enumerate(curves.items()):
            colour, style = OKABE_ITO[index % len(OKABE_ITO)], styles[index % len(styles)]
            axes.plot(false, true, style, color=colour, label=name, drawstyle="steps-post")
        axes.plot([1e-4, 1], [1e-4, 1], color="#777777", linewidth=0.8, label="guessing")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1e-4, 1)
        axes.set_ylim(1e-4, 1)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="lower right")


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


@contextmanager
def _figure(path: Path, title: str, source_label: str, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of its own, without pyplot's global state, saved at the end. A stand-in or an attack
    is marked in red."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    loud = is_loud(source_label)
    figure.suptitle(title)
    figure.supxlabel(
        f"data: {marked_source(source_label)}",
        fontsize="small",
        color="#C00000" if loud else "#333333",
        weight="bold" if loud else "normal",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
