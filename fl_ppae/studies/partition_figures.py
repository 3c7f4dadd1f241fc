"""The figure of the partition study: accuracy and epsilon by how records are split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fl_ppae.plotting import OKABE_ITO, figure_file
from fl_ppae.studies.summary import Group, distinct, sources, where

_BLUE, _ORANGE, _GREEN, _, _SKY, _, _, _BLACK = OKABE_ITO
_ACCURACIES = (
    ("federated", "calibrated", "accuracy", _BLUE, "o", "federated, all images"),
    ("federated", "shared", "accuracy", _ORANGE, "s", "one noise for all, all images"),
    ("federated", "calibrated", "accuracy_hospitals", _SKY, "P", "federated, own mix: mean"),
    ("federated", "calibrated", "accuracy_worst", _SKY, "v", "federated, own mix: worst"),
    ("alone", "calibrated", "accuracy_hospitals", _GREEN, "D", "each alone, own mix: mean"),
    ("alone", "calibrated", "accuracy_worst", _GREEN, "^", "each alone, own mix: worst"),
)
_NOISES = (
    ("calibrated", _BLUE, -0.12, "calibrated per hospital"),
    ("shared", _ORANGE, 0.12, "one noise for all"),
)


def draw_partition_figures(groups: Sequence[Group], folder: Path) -> None:
    """Draw `partitions.png`, a row of panels per number of hospitals; nothing without a federated cell."""
    federated = where(groups, setting="federated")
    if not federated:
        return
    counts = sorted(distinct(federated, "hospitals"), key=int)
    names = distinct(federated, "partition")
    title, size = "How data is split between hospitals", (11, 3.2 * len(counts) + 0.8)
    with figure_file(folder / "partitions.png", title, sources(groups), size) as figure:
        panels = figure.subplots(len(counts), 2, squeeze=False)
        for count, (left, right) in zip(counts, panels, strict=True):
            subset = where(groups, hospitals=count)
            _draw_accuracies(left, subset, names)
            _draw_epsilons(right, subset, names)
            for central in where(groups, setting="central")[:1]:
                if (value := central.value("accuracy")) is not None:
                    label = "central, same epsilon"
                    left.axhline(value, color=_BLACK, linestyle="--", linewidth=0.8, label=label)
            for axes in (left, right):
                axes.set_title(f"{count} hospitals", fontsize=9)
                axes.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=7)
                axes.grid(axis="y", linewidth=0.4, alpha=0.5)
                handles, texts = axes.get_legend_handles_labels()
                first = dict(zip(texts, handles, strict=True))
                axes.legend(first.values(), first.keys(), fontsize=6, loc="lower left")


def _draw_accuracies(axes: Any, groups: Sequence[Group], names: Sequence[str]) -> None:
    for index, (setting, noise, metric, colour, marker, name) in enumerate(_ACCURACIES):
        for group in where(groups, setting=setting, noise=noise):
            if (mean := group.means.get(metric)) is not None:
                place = names.index(group.keys["partition"]) + 0.13 * (index - 2.5)
                style = {"fmt": marker, "color": colour, "markersize": 4, "linewidth": 0.8}
                axes.errorbar(place, mean.value, yerr=mean.half, label=name, **style)
    axes.set_ylabel("accuracy (0 to 1)")
    axes.set_ylim(0, 1)


def _draw_epsilons(axes: Any, groups: Sequence[Group], names: Sequence[str]) -> None:
    for noise, colour, shift, name in _NOISES:
        for group in where(groups, setting="federated", noise=noise):
            if "epsilon_max" in group.means:
                place = names.index(group.keys["partition"]) + shift
                ends = [group.value("epsilon_min"), group.value("epsilon_max")]
                axes.plot([place, place], ends, color=colour, marker="_", label=name)
    axes.set_ylabel("epsilon, smallest to largest")
    axes.set_ylim(0)
