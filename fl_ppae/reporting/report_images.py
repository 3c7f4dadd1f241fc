"""The images of a run's report."""

from __future__ import annotations

from dataclasses import dataclass

from fl_ppae.reporting.evidence import Inversion
from fl_ppae.reporting.page import Picture, embedded, is_picture, picture
from fl_ppae.runs.stored import StoredRun

_FIGURES = {
    "label_distributions": (
        "Stacked bars: train records of each class in each hospital",
        "Drawn by the run itself.",
    ),
    "encodings": (
        "Test images, each above its encoding",
        "Test images and their encodings, drawn by the run itself.",
    ),
}


@dataclass(frozen=True)
class Strip:
    """A named row of images, with the mean SSIM to the originals if the images are guesses."""

    name: str
    picture: Picture
    ssim: str


def figure_of(run: StoredRun, name: str) -> Picture | None:
    """A figure drawn by the run itself, `label_distributions` or `encodings`; None if there is none."""
    path = run.path / "figures" / f"{name}.png"
    return picture(path, *_FIGURES[name]) if is_picture(path) else None


def strips(inversion: Inversion, *, uploads: bool) -> list[Strip]:
    """The rows of images of an inversion. `uploads`: encodings of train images left the hospitals."""
    words = {
        "original": "train images whose encodings were uploaded" if uploads else "official test images",
        "encoding": "what the attacker sees: channels tiled, or a vector folded into a square",
        "attacker, linear": f"ridge regression from {inversion.pairs:,} pairs",
        "class-mean image": "the guess of someone who knows only the label",
        "mean image": "the guess of someone who knows nothing",
    }
    return [
        Strip(
            name,
            Picture(embedded(png), f"{name}: {words[name]}", words[name]),
            f"{inversion.ssim[name]:.3f}" if name in inversion.ssim else "",
        )
        for name, png in inversion.rows.items()
    ]
