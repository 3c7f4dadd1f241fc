"""Figures of a study: colours of Okabe and Ito, a shape beside every colour, 95 % intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fl_ppae.plotting import OKABE_ITO
from fl_ppae.studies.statistics import Mean
from fl_ppae.studies.summary import Group

_DOTS_PER_INCH = 150
_BLUE, _ORANGE, _GREEN, _PINK, _SKY, _RED, _, _BLACK = OKABE_ITO
_FAMILIES = {"fc": (_ORANGE, "o"), "fc-deep": (_RED, "v"), "conv": (_BLUE, "s"), "conv-image": (_GREEN, "D")}
_UNTRAINED = {"pixels": (_BLACK, "*"), "pca": (_PINK, "P"), "scatternet": (_SKY, "X")}
_CLASSIFIERS = {"lr": "logistic regression", "resnet18": "ResNet18"}


def plot_accuracy(groups: Sequence[Group], path: Path) -> None:
    """Test accuracy of every configuration: a column of panels a data set, a row a classifier."""
    datasets = _values(groups, "dataset")
    classifiers = [name for name in _CLASSIFIERS if name in _values(groups, "classifier")]
    tallest = max(len(_labels(_where(groups, dataset=name))) for name in datasets)
    size = (1.8 + 3.6 * len(datasets), 1.4 + (0.8 + 0.19 * tallest) * len(classifiers))
    with _figure(path, "Accuracy on the test images", groups, size) as figure:
        panels = figure.subplots(len(classifiers), len(datasets), squeeze=False)
        for row, classifier in enumerate(classifiers):
            for column, dataset in enumerate(datasets):
                axes = panels[row][column]
                own = _where(groups, dataset=dataset, classifier=classifier)
                for place, group in enumerate(own):
                    colour, marker = _style(group)
                    _point(axes, group.means["accuracy"], place, colour, marker, hollow=_hollow(group))
                axes.set_yticks(range(len(own)), [_label(group) for group in own], fontsize=6)
                axes.invert_yaxis()
                axes.grid(axis="x", linewidth=0.4, alpha=0.5)
                axes.set_title(f"{dataset}, {_CLASSIFIERS[classifier]}", fontsize=9)
                axes.set_xlabel("accuracy, 0 to 1 (mean, 95 % interval)", fontsize=7)
                axes.tick_params(axis="x", labelsize=7)
                axes.xaxis.set_major_locator(MaxNLocator(6))


def plot_frontier(groups: Sequence[Group], path: Path) -> None:
    """Accuracy against the attacker's SSIM, a panel a data set; the two floors are dashed lines."""
    datasets = _values(groups, "dataset")
    with _figure(
        path, "Accuracy and what an attacker reconstructs", groups, (3 + 4 * len(datasets), 4.6)
    ) as (figure):
        panels = figure.subplots(1, len(datasets), squeeze=False)[0]
        drawn: dict[str, Any] = {}
        for axes, dataset in zip(panels, datasets, strict=True):
            own = _where(groups, dataset=dataset, classifier="lr") or _where(groups, dataset=dataset)
            for group in own:
                if "inversion_ssim" not in group.means:
                    continue
                colour, marker = _style(group)
                ssim, accuracy = group.means["inversion_ssim"], group.means["accuracy"]
                face = "none" if _hollow(group) else colour
                size = {"none": 5.0}.get(group.keys["privacy"], 8.0)
                handle = axes.errorbar(
                    ssim.value,
                    accuracy.value,
                    xerr=_half(ssim),
                    yerr=_half(accuracy),
                    fmt=marker,
                    color=colour,
                    markerfacecolor=face,
                    markersize=size,
                    linewidth=0.7,
                )
                drawn.setdefault(_short(group), handle)
            for metric, style, name in (
                ("ssim_mean_image", ":", "floor: mean image"),
                ("ssim_class_mean", "--", "floor: class-mean image"),
            ):
                values = [group.means[metric].value for group in own if metric in group.means]
                if values:
                    drawn.setdefault(name, axes.axvline(values[0], color="#555555", linestyle=style))
            axes.set_title(dataset, fontsize=10)
            axes.set_xlabel("SSIM of the best attacker's images (-1 to 1)")
            axes.set_ylabel("accuracy of LR (0 to 1)")
            axes.grid(linewidth=0.4, alpha=0.5)
        figure.legend(drawn.values(), drawn.keys(), loc="outside right upper", fontsize=7)


def plot_partitions(groups: Sequence[Group], path: Path) -> None:
    """For each partition: accuracy on all images and on hospitals' own mixes, and the spread of epsilon."""
    federated = _where(groups, setting="federated")
    counts = sorted(_values(federated, "hospitals"), key=int)
    names = _values(federated, "partition")
    with _figure(
        path, "How data is split between hospitals", groups, (11, 3.2 * len(counts) + 0.8)
    ) as figure:
        panels = figure.subplots(len(counts), 2, squeeze=False)
        for row, count in enumerate(counts):
            own = _where(groups, hospitals=count)
            left, right = panels[row]
            series = (
                ("federated", "calibrated", "accuracy", _BLUE, "o", "federated, all images"),
                ("federated", "shared", "accuracy", _ORANGE, "s", "one noise for all, all images"),
                ("federated", "calibrated", "accuracy_hospitals", _SKY, "P", "federated, own mix: mean"),
                ("federated", "calibrated", "accuracy_worst", _SKY, "v", "federated, own mix: worst"),
                ("alone", "calibrated", "accuracy_hospitals", _GREEN, "D", "each alone, own mix: mean"),
                ("alone", "calibrated", "accuracy_worst", _GREEN, "^", "each alone, own mix: worst"),
            )
            for index, (setting, noise, metric, colour, marker, name) in enumerate(series):
                for group in _where(own, setting=setting, noise=noise):
                    if metric in group.means:
                        place = names.index(group.keys["partition"]) + 0.13 * (index - 2.5)
                        _upright(left, group.means[metric], place, colour, marker, name)
            for noise, colour, shift in (("calibrated", _BLUE, -0.12), ("shared", _ORANGE, 0.12)):
                for group in _where(own, setting="federated", noise=noise):
                    if "epsilon_max" in group.means:
                        place = names.index(group.keys["partition"]) + shift
                        low, high = group.means["epsilon_min"].value, group.means["epsilon_max"].value
                        label = "calibrated per hospital" if noise == "calibrated" else "one noise for all"
                        right.plot([place, place], [low, high], color=colour, marker="_", label=label)
            central = _where(groups, setting="central")
            if central and "accuracy" in central[0].means:
                value = central[0].means["accuracy"].value
                left.axhline(
                    value, color=_BLACK, linestyle="--", linewidth=0.8, label="central, same epsilon"
                )
            left.set_ylabel("accuracy (0 to 1)")
            left.set_ylim(0, 1)
            right.set_ylabel("epsilon, least to most")
            right.set_ylim(0)
            for axes in (left, right):
                axes.set_title(f"{count} hospitals", fontsize=9)
                axes.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=7)
                axes.grid(axis="y", linewidth=0.4, alpha=0.5)
                handles, texts = axes.get_legend_handles_labels()
                first = dict(zip(texts, handles, strict=True))
                axes.legend(first.values(), first.keys(), fontsize=6, loc="lower left")


@contextmanager
def _figure(path: Path, title: str, groups: Sequence[Group], size: tuple[float, float]) -> Iterator[Figure]:
    """Saved at the end, its sources below; a stand-in is marked in red."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    drawn = any(group.keys["stand_in"] == "true" for group in groups)
    sources = ", ".join(dict.fromkeys(group.keys["source"] for group in groups))
    figure.suptitle(title)
    figure.supxlabel(
        f"data: {sources}" + (" - NOT REAL DATA" if drawn else ""),
        fontsize="x-small",
        color="#C00000" if drawn else "#333333",
        weight="bold" if drawn else "normal",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _where(groups: Sequence[Group], **keys: str) -> list[Group]:
    return [group for group in groups if all(group.keys[key] == value for key, value in keys.items())]


def _values(groups: Sequence[Group], key: str) -> list[str]:
    return list(dict.fromkeys(group.keys[key] for group in groups))


def _style(group: Group) -> tuple[str, str]:
    if group.keys["autoencoder"] in _FAMILIES:
        return _FAMILIES[group.keys["autoencoder"]]
    return _UNTRAINED[group.keys["encoding"]]


def _hollow(group: Group) -> bool:
    """Without a formal epsilon a mark is hollow."""
    return group.keys["epsilon_status"] != "formal"


def _short(group: Group) -> str:
    name = group.keys["autoencoder"] if group.keys["autoencoder"] != "none" else group.keys["encoding"]
    status = {"formal": "DP (formal)", "nominal": "DP (nominal)"}.get(group.keys["epsilon_status"], "")
    if group.keys["encoding"] == "random":
        status = "random"
    return f"{name} {status or ('no DP' if group.keys['encoding'] == 'trained' else '')}".strip()


def _label(group: Group) -> str:
    keys = group.keys
    if keys["encoding"] == "random":
        return f"random {keys['autoencoder']}"
    if keys["encoding"] != "trained":
        return keys["encoding"]
    worth = "no DP" if keys["privacy"] == "none" else f"eps {keys['privacy']} {keys['epsilon_status']}"
    where = "central" if keys["hospitals"] == "1" else f"{keys['hospitals']} hospitals"
    return f"{keys['autoencoder']}, {worth}, {where}"


def _labels(groups: Sequence[Group]) -> set[str]:
    return {_label(group) for group in groups}


def _half(mean: Mean) -> float | None:
    return None if math.isnan(mean.low) else mean.high - mean.value


def _point(axes: Any, mean: Mean, place: float, colour: str, marker: str, *, hollow: bool) -> None:
    face = "none" if hollow else colour
    axes.errorbar(
        mean.value,
        place,
        xerr=_half(mean),
        fmt=marker,
        color=colour,
        markerfacecolor=face,
        markersize=5,
        linewidth=0.8,
    )


def _upright(axes: Any, mean: Mean, place: float, colour: str, marker: str, name: str) -> None:
    axes.errorbar(
        place,
        mean.value,
        yerr=_half(mean),
        fmt=marker,
        color=colour,
        markersize=4,
        linewidth=0.8,
        label=name,
    )
