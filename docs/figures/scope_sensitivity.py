"""Draw docs/scope_sensitivity.png: realised sensitivity / clipping norm over the steps, one line a scope.

    python docs/figures/scope_sensitivity.py FOLDER/bloodmnist.npz

Left, the constructed pair; right, real BloodMNIST records: the median and the range over three extra ones.
The numbers are those of `realised_sensitivity.py` beside it, as in the tests. They are printed too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from realised_sensitivity import realised_sensitivity, white_among_grey

from fl_ppae.data.cache import Split
from fl_ppae.data.npz import read_npz
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError
from fl_ppae.hospital.training import TrainingTerms
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.plotting import OKABE_ITO
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES

OUTPUT = Path(__file__).parents[1] / "scope_sensitivity.png"
BLOOD = DATASETS["bloodmnist"]
SEED = 42
CLIPPING_NORM, LEARNING_RATE, NOISE_MULTIPLIER, SAMPLE_RATE, STEPS = 0.001, 0.004, 1.5, 0.25, 60
GREY_RECORDS, BLOOD_RECORDS, BLOOD_EXTRAS = 256, 512, 3
STYLES = {
    "encoder": (OKABE_ITO[5], "-"),
    "frozen-decoder": (OKABE_ITO[0], "--"),
    "autoencoder": ("black", ":"),
}


def main() -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="BloodMNIST, an .npz in MedMNIST's key layout")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    try:
        neighbours = blood_neighbours(arguments.data)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    constructed = [white_among_grey(GREY_RECORDS)]
    panels = {
        f"constructed pair, drawn images\n{GREY_RECORDS} grey, and a white one": constructed,
        f"{source_label(arguments.data)}, real images\n"
        f"{BLOOD_RECORDS} records, and an ordinary one (median and range of {BLOOD_EXTRAS})": neighbours,
    }
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True)
    for axes, (title, pairs) in zip(all_axes, panels.items(), strict=True):
        print(title.replace("\n", ": "))
        draw(axes, title, pairs)
    all_axes[0].set_ylabel("realised sensitivity / clipping norm\n(ratio, log scale)")
    all_axes[0].legend(frameon=False, fontsize="small", loc="upper left")
    figure.supxlabel(
        f"autoencoder conv, clipping norm {CLIPPING_NORM:g}, learning rate {LEARNING_RATE:g}, "
        f"noise multiplier {NOISE_MULTIPLIER:g}, sample rate {SAMPLE_RATE:g}, seed {SEED}",
        fontsize="small",
    )
    figure.savefig(arguments.output, dpi=150)
    return 0


def blood_neighbours(path: Path) -> list[HospitalRecords]:
    """The first train records of the file, each time with another of the next ones as the extra one."""
    with tempfile.TemporaryDirectory() as scratch:  # what is mapped outlives its name
        arrays = read_npz(path, BLOOD, Path(scratch))
    split = Split(arrays["train_images"], arrays["train_labels"])
    wanted = BLOOD_RECORDS + BLOOD_EXTRAS
    if len(split) < wanted:
        raise UserError(f"{path}: {len(split)} train records; the figure needs at least {wanted}")
    common = np.arange(BLOOD_RECORDS)
    return [HospitalRecords(split, np.append(common, extra)) for extra in range(BLOOD_RECORDS, wanted)]


def source_label(path: Path) -> str:
    """BloodMNIST's name only if it is the official file, to the byte."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    official = md5 == BLOOD.files[0].md5
    return f"{BLOOD.title} (official file)" if official else f"file {path.name}"


def draw(axes: Any, title: str, pairs: list[HospitalRecords]) -> None:
    """One panel: each scope's median over `pairs`, and their range."""
    steps = np.arange(1, STEPS + 1)
    for scope, (colour, line) in STYLES.items():
        ratios = np.array([measure(scope, records) for records in pairs])
        print(
            f"  {scope:15} step 1: {np.median(ratios[:, 0]):.3f}   largest of each pair:",
            ", ".join(f"{value:.5f}" for value in ratios.max(axis=1)),
            f"  steps above 1.001: {np.mean(ratios > 1.001):.0%}",
        )
        axes.plot(steps, np.median(ratios, axis=0), line, color=colour, label=scope, linewidth=1.8)
        if len(pairs) > 1:
            axes.fill_between(
                steps, ratios.min(axis=0), ratios.max(axis=0), color=colour, alpha=0.2, linewidth=0
            )
    axes.axhline(1, color="#888888", linewidth=0.8, zorder=0)
    axes.text(STEPS, 0.42, "line at 1: what the noise is scaled to", ha="right", va="top", fontsize="small")
    axes.set_yscale("log")
    axes.set_ylim(0.3, 400)
    axes.set_yticks([1, 10, 100], ["1", "10", "100"])
    axes.set_xlabel("training step")
    axes.set_title(title, fontsize="small")
    axes.grid(alpha=0.25)


def measure(scope: str, records: HospitalRecords) -> np.ndarray:
    """Realised sensitivity / clipping norm at each step, (STEPS,)."""
    image_shape = tuple(records.images(slice(0, 1)).shape[1:])
    autoencoder = build_autoencoder("conv", 0, image_shape, SEED)
    terms = TrainingTerms(
        SCOPES[scope],
        OBJECTIVES["reconstruction"],
        NOISE_MULTIPLIER,
        CLIPPING_NORM,
        SAMPLE_RATE,
        STEPS,
        LEARNING_RATE,
    )
    model = LocalModel(autoencoder.encoder, autoencoder.decoder)
    return np.array(realised_sensitivity(model, records, terms, streams(SEED, 0, 1))) / CLIPPING_NORM


if __name__ == "__main__":
    sys.exit(main())
