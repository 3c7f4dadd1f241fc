"""The figure of the value study: accuracy with and without joining, by setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fl_ppae.plotting import OKABE_ITO, figure_file
from fl_ppae.studies.summary import Group, sources

_BLUE, _ORANGE, _GREEN, _SKY = (OKABE_ITO[place] for place in (0, 1, 2, 4))
_SHOWN = (
    ("accuracy_server", _ORANGE, "s", "server alone"),
    ("accuracy_alone", _GREEN, "D", "hospital alone"),
    ("accuracy", _SKY, "o", "common head"),
    ("accuracy_personal", _BLUE, "P", "hospital with the common head"),
)


def draw_value_figures(groups: Sequence[Group], folder: Path) -> None:
    """Draw `value.png`: a row for each setting, and its four accuracies; bars are intervals over seeds."""
    height = 0.42 * len(groups) + 1.6
    title = "Where does joining pay?"
    with figure_file(folder / "value.png", title, sources(groups), (9, height)) as figure:
        axes = figure.subplots()
        for metric, colour, marker, label in _SHOWN:
            known = [
                (place, group.means[metric]) for place, group in enumerate(groups) if metric in group.means
            ]
            axes.errorbar(
                [mean.value for _, mean in known],
                [place for place, _ in known],
                xerr=[mean.half or 0.0 for _, mean in known],
                fmt=marker,
                color=colour,
                markersize=5,
                linewidth=0.8,
                label=label,
            )
        axes.set_yticks(range(len(groups)), [_named(group) for group in groups], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("accuracy on the official test split (0 to 1)")
        axes.grid(axis="x", linewidth=0.4, alpha=0.5)
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)


def _named(group: Group) -> str:
    keys = group.keys
    public = "all" if keys["public_records"] == "-1" else keys["public_records"]
    noise = "no noise" if keys["privacy"] == "none" else f"epsilon {keys['privacy']}, {keys['noise']}"
    split = "" if keys["partition"] == "iid" else f", {keys['partition']}"
    return f"{keys['hospitals']} hospitals, {public} public, {noise}{split}"
