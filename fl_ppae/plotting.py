"""Figures with colour-blind-safe colours. Each names its data source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from fl_ppae.source_label import is_loud, marked_source

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
TARGET = OKABE_ITO[5]
LOUD = "#b00000"
INK = "#222222"
_HATCHES = ("", "///", "...")
_DOTS_PER_INCH = 150
_BARS = 40


def plot_label_distributions(
    counts_per_hospital: Mapping[str, np.ndarray[Any, Any]],
    class_names: Sequence[str],
    source_label: str,
    path: Path,
    *,
    counted: str = "train records",
) -> None:
    """Stacked bars: each hospital's number of train records of each class, or of what is `counted`, (K,)."""
    counts = np.array(list(counts_per_hospital.values()))
    # Each of up to 40 hospitals has a name and a bar of 0.4 inches. Beyond, bars get thin and 40 are named.
    height = 1.6 + 0.4 * min(len(counts), _BARS)
    with figure_file(path, f"{counted.capitalize()} by class", source_label, (9, height)) as figure:
        axes = figure.subplots()
        left = np.zeros(len(counts))
        for index, name in enumerate(class_names):
            lap, colour = divmod(index, len(OKABE_ITO))
            axes.barh(
                list(counts_per_hospital),
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
        axes.set_xlabel(counted)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")


def plot_image_rows(
    rows: Mapping[str, np.ndarray[Any, Any]], path: Path, title: str, source_label: str
) -> None:
    """Rows of images (N, C, H, W) with values 0 to 1, each row with its name."""
    count = len(next(iter(rows.values())))
    with figure_file(path, title, source_label, (1.0 * count + 1.6, 1.0 * len(rows) + 0.9)) as figure:
        grid = figure.subplots(len(rows), count, squeeze=False)
        for (name, images), line in zip(rows.items(), grid, strict=True):
            for image, axes in zip(images, line, strict=True):
                show_image(axes, image)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")


def show_image(axes: Any, image: np.ndarray[Any, Any]) -> None:
    """One image (C, H, W) with values 0 to 1, without ticks."""
    pixels = np.clip(np.moveaxis(image, 0, -1), 0, 1)
    axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])


def plot_extraction(
    queries: Sequence[int],
    by_queries: Mapping[str, Sequence[float]],
    own_accuracy: float,
    path: Path,
    source_label: str,
) -> None:
    """A surrogate's agreement and accuracy (0 to 1) by number of queries, and the original's accuracy."""
    with figure_file(path, "Classifier copied by querying it", source_label, (6, 4)) as figure:
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
    allowed: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None,
) -> None:
    """Each attacker's true-positive rate by false-positive rate, on log axes, with the line of guessing.

    `allowed`: the edge of what the guarantee allows; None if there is no guarantee.
    """
    with figure_file(path, title, source_label, (5.5, 5)) as figure:
        axes = figure.subplots()
        styles = ("-", "--", "-.", ":")
        for index, (name, (false, true)) in enumerate(curves.items()):
            colour, style = OKABE_ITO[index % len(OKABE_ITO)], styles[index % len(styles)]
            axes.plot(false, true, style, color=colour, label=name, drawstyle="steps-post")
        axes.plot([1e-4, 1], [1e-4, 1], color="#777777", linewidth=0.8, label="guessing")
        if allowed is None:
            axes.plot([], [], " ", label="no guarantee: nothing is ruled out")
        else:
            axes.plot(*allowed, color="black", linewidth=1.2, label="most that the guarantee allows")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1e-4, 1)
        axes.set_ylim(1e-4, 1)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="lower right")


@contextmanager
def figure_file(path: Path, title: str, source_label: str, size: tuple[float, float]) -> Iterator[Figure]:
    """Yield a figure, then save it with its title and data source. `size` is in inches."""
    figure = blank_figure(size)
    yield figure
    figure.suptitle(title, parse_math=False)
    name_source(figure, f"data: {marked_source(source_label)}", loud=is_loud(source_label))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def blank_figure(size: tuple[float, float]) -> Figure:
    """An empty figure without pyplot's global state. `size` is in inches."""
    return Figure(figsize=size, layout="constrained")


def name_source(figure: Figure, text: str, *, loud: bool) -> None:
    """Write the data source below a figure, in bold red if it must stand out (`loud`)."""
    figure.supxlabel(
        text,
        fontsize="small",
        color=LOUD if loud else "#333333",
        weight="bold" if loud else "normal",
        parse_math=False,
    )
