"""What a run's report shows of its images and of its label mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fl_ppae.reporting.evidence import Inversion, LabelMix
from fl_ppae.reporting.page import Picture, embedded, picture
from fl_ppae.runs.stored import StoredRun


@dataclass(frozen=True)
class Strip:
    """A row of images with its name, what it shows, and the mean SSIM to the originals if it is a guess."""

    name: str
    picture: Picture
    ssim: str


@dataclass(frozen=True)
class MixRow:
    """One hospital's records by class: (count, share of the hospital's records in percent)."""

    hospital: str
    cells: tuple[tuple[int, int], ...]
    records: int
    distance: str


def label_mix(mix: LabelMix) -> dict[str, Any]:
    """The table of the label mix: its classes and a `MixRow` for each hospital."""
    rows = [
        MixRow(
            name,
            tuple((count, round(100 * count / max(1, sum(counts)))) for count in counts),
            sum(counts),
            f"{mix.distance[name]:.3f}",
        )
        for name, counts in mix.counts.items()
    ]
    return {"classes": mix.classes, "rows": rows}


def mix_picture(run: StoredRun) -> Picture | None:
    """The label mix as the run itself drew it, for when its data is gone; None if it didn't."""
    path = run.path / "figures" / "label_distributions.png"
    if not path.is_file():
        return None
    return picture(
        path, "Stacked bars: train records of each class in each hospital", "Drawn by the run itself."
    )


def encodings_picture(run: StoredRun) -> Picture | None:
    """Images and their encodings, as the run itself drew them; None if it didn't."""
    path = run.path / "figures" / "encodings.png"
    if not path.is_file():
        return None
    return picture(
        path, "Test images, each above its encoding", "Test images and their encodings, by the run itself."
    )


def strips(inversion: Inversion, *, uploads: bool) -> list[Strip]:
    """The attacker's rows of images in words; `uploads`: encodings of train images left the hospitals."""
    words = {
        "original": "train images whose encodings were uploaded" if uploads else "official test images",
        "encoding": "what the attacker sees: channels tiled, or a vector folded to a square",
        "attacker, linear": f"ridge regression from {inversion.pairs:,} pairs",
        "class-mean image": "a guess by one who knows only the label",
        "mean image": "a guess by one who knows nothing",
    }
    return [
        Strip(
            name,
            Picture(embedded(png), f"{name}: {words[name]}", words[name]),
            f"{inversion.ssim[name]:.3f}" if name in inversion.ssim else "",
        )
        for name, png in inversion.rows.items()
    ]
