"""Figures of the paper's study: one colour and shape per encoder, hollow without a formal epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from fl_ppae.plotting import OKABE_ITO, figure_file
from fl_ppae.privacy.figures import NONE
from fl_ppae.studies.summary import Group, distinct, sources, where

_BLUE, _ORANGE, _GREEN, _PINK, _SKY, _RED, _, _BLACK = OKABE_ITO
_STYLES = {
    "fc": (_ORANGE, "o"),
    "fc-deep": (_RED, "v"),
    "conv": (_BLUE, "s"),
    "conv-image": (_GREEN, "D"),
    "pixels": (_BLACK, "*"),
    "pca": (_PINK, "P"),
    "scatternet": (_SKY, "X"),
}
_CLASSIFIERS = {"lr": "logistic regression", "resnet18": "ResNet18"}
_FLOORS = (
    ("ssim_mean_image", ":", "floor: mean image"),
    ("ssim_class_mean", "--", "floor: class-mean image"),
)


def draw_paper_figures(groups: Sequence[Group], folder: Path) -> None:
    """Draw `accuracy.png` and `frontier.png`."""
    _draw_accuracy(groups, folder / "accuracy.png")
    _draw_frontier(groups, folder / "frontier.png")


def _draw_accuracy(groups: Sequence[Group], path: Path) -> None:
    """Test accuracy of every configuration, with a column of panels per data set and a row per classifier."""
    datasets = distinct(groups, "dataset")
    classifiers = [name for name in _CLASSIFIERS if name in distinct(groups, "classifier")]
    tallest = max(len(set(map(_label, where(groups, dataset=name)))) for name in datasets)
    size = (1.8 + 3.6 * len(datasets), 1.4 + (0.8 + 0.19 * tallest) * len(classifiers))
    with figure_file(path, "Accuracy on the test images", sources(groups), size) as figure:
        panels = figure.subplots(len(classifiers), len(datasets), squeeze=False)
        for line, classifier in zip(panels, classifiers, strict=True):
            for axes, dataset in zip(line, datasets, strict=True):
                shown = where(groups, dataset=dataset, classifier=classifier)
                for place, group in enumerate(shown):
                    mean = group.means["accuracy"]
                    style = _style(group)
                    axes.errorbar(mean.value, place, xerr=mean.half, markersize=5, linewidth=0.8, **style)
                axes.set_yticks(range(len(shown)), [_label(group) for group in shown], fontsize=6)
                axes.invert_yaxis()
                axes.grid(axis="x", linewidth=0.4, alpha=0.5)
                axes.set_title(f"{dataset}, {_CLASSIFIERS[classifier]}", fontsize=9)
                axes.set_xlabel("accuracy, 0 to 1 (mean, 95 % interval)", fontsize=7)
                axes.tick_params(axis="x", labelsize=7)
                axes.xaxis.set_major_locator(MaxNLocator(6))


def _draw_frontier(groups: Sequence[Group], path: Path) -> None:
    """Accuracy against the attacker's SSIM, with a panel per data set; the two floors are vertical lines."""
    datasets = distinct(groups, "dataset")
    size = (3 + 4 * len(datasets), 4.6)
    with figure_file(path, "Accuracy and what an attacker reconstructs", sources(groups), size) as figure:
        panels = figure.subplots(1, len(datasets), squeeze=False)[0]
        drawn: dict[str, Any] = {}
        for axes, dataset in zip(panels, datasets, strict=True):
            shown = where(groups, dataset=dataset, classifier="lr") or where(groups, dataset=dataset)
            for group in shown:
                ssim, accuracy = group.means.get("inversion_ssim"), group.means["accuracy"]
                if ssim is None:
                    continue
                handle = axes.errorbar(
                    ssim.value,
                    accuracy.value,
                    xerr=ssim.half,
                    yerr=accuracy.half,
                    markersize=5 if group.keys["privacy"] == "none" else 8,
                    linewidth=0.7,
                    **_style(group),
                )
                drawn.setdefault(_short(group), handle)
            for metric, style, name in _FLOORS:
                floors = [floor for group in shown if (floor := group.value(metric)) is not None]
                if floors:
                    drawn.setdefault(name, axes.axvline(floors[0], color="#555555", linestyle=style))
            axes.set_title(dataset, fontsize=10)
            axes.set_xlabel("SSIM of the best attacker's images (-1 to 1)")
            axes.set_ylabel("accuracy of LR (0 to 1)")
            axes.grid(linewidth=0.4, alpha=0.5)
        figure.legend(drawn.values(), drawn.keys(), loc="outside right upper", fontsize=7)


def _architecture(group: Group) -> str:
    return group.encoder.removeprefix("random ")


def _style(group: Group) -> dict[str, str]:
    colour, marker = _STYLES[_architecture(group)]
    return {"fmt": marker, "color": colour, "markerfacecolor": colour if group.formal else "none"}


def _short(group: Group) -> str:
    status = group.keys["epsilon_status"]
    status = "no DP" if status == NONE else f"DP ({status})"
    if not group.trained:
        status = "random" if group.keys["encoding"] == "random" else ""
    return f"{_architecture(group)} {status}".strip()


def _label(group: Group) -> str:
    keys = group.keys
    if not group.trained:
        return group.encoder
    dp = "no DP" if keys["privacy"] == "none" else f"eps {keys['privacy']} {keys['epsilon_status']}"
    place = "central" if keys["hospitals"] == "1" else f"{keys['hospitals']} hospitals"
    return f"{group.encoder}, {dp}, {place}"
