"""The figure of `study frontier`: accuracy against what the strongest attacker makes of a code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fl_ppae.plotting import OKABE_ITO, figure_file
from fl_ppae.studies.summary import Group, distinct, sources, where

_PANELS = (
    ("inversion_ssim", "SSIM of the best inversion"),
    ("inversion_psnr", "PSNR of the best inversion, dB"),
    ("retrieval_augmented_top1", "retrieval, augmented candidates"),
    ("linkage_auc", "linkage, AUC"),
)
_FLOORS = ("mean_image", ":"), ("class_mean", "--")
_TITLE = "Accuracy and leakage of codes, labelled with their bits (dotted: mean image, dashed: class mean)"
_MARKERS = {"head": "o", "mlp": "^", "lr": "s"}


def draw_frontier_figures(groups: Sequence[Group], folder: Path) -> None:
    """Draw `hiding.png`: a panel for each attack, a colour for each number of numbers in a code."""
    with figure_file(folder / "hiding.png", _TITLE, sources(groups), (11, 7)) as figure:
        for axes, (metric, label) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            for colour, numbers in zip(OKABE_ITO, distinct(groups, "code_numbers"), strict=False):
                for name, marker in _MARKERS.items():
                    found = where(groups, code_numbers=numbers, classifier=name)
                    shown = sorted(found, key=lambda group: int(group.keys["code_bits"]))
                    if not shown:
                        continue
                    formal = shown[0].keys["run_formal"] == "true"
                    axes.plot(
                        [group.value(metric) for group in shown],
                        [group.value("accuracy") for group in shown],
                        color=colour,
                        marker=marker,
                        markerfacecolor=colour if formal else "none",
                        linewidth=0.6,
                        label=f"{numbers} numbers, {name}" + (", formal" if formal else ""),
                    )
                    for group in shown:
                        place = (group.value(metric), group.value("accuracy"))
                        axes.annotate(
                            group.keys["code_bits"], place, (4, -8), textcoords="offset points", fontsize=6
                        )
            kind = metric.removeprefix("inversion_")
            for floor, style in _FLOORS:
                if (value := groups[0].value(f"{kind}_{floor}")) is not None:
                    axes.axvline(value, color="grey", linestyle=style, linewidth=0.8)
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy on the test images")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=7, frameon=False)
