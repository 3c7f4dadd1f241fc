"""Draws docs/noised_encodings.png: accuracy learned from noised encodings, by epsilon and projection size.

    python docs/figures/noised_encodings.py RUN [--draws 5]

RUN is a finished run directory with a common encoder; its data set and encoder are used. All train
encodings are released once by the Gaussian mechanism (as in a run, whose hospitals draw the same noise),
for each epsilon and size, with labels in the clear. Prints the table that the figure shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors.torch import load_file

from fl_ppae.config import RunConfig
from fl_ppae.data.sources import resolve
from fl_ppae.models.build import autoencoder_of
from fl_ppae.models.encoding import encode
from fl_ppae.plotting import OKABE_ITO
from fl_ppae.privacy.calibration import calibrate_encoding_noise
from fl_ppae.privacy.encodings import noised, project_and_clip, public_projection
from fl_ppae.privacy.randomness import seeded_stream
from fl_ppae.runs.stored import find_run
from fl_ppae.server.classification import fit_and_score
from fl_ppae.server.metrics import score
from fl_ppae.server.noised_classifier import classifier_of, moments

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
DELTA = 1e-5
OUTPUT = Path(__file__).parents[1] / "noised_encodings.png"
SIZES = (8, 16, 32, 784)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    run = find_run(arguments.run)
    config = RunConfig.from_flat(run.values)
    dataset = resolve(config)
    encoder = autoencoder_of(config).encoder
    encoder.load_state_dict(load_file(run.path / "encoder.safetensors"))
    train, val, test = (encode(encoder, part.images) for part in (dataset.train, dataset.val, dataset.test))
    labels, test_labels = np.ravel(dataset.train.labels), np.ravel(dataset.test.labels)
    classes = dataset.spec.num_classes

    plain = fit_and_score("lr", train, labels, test, test_labels, classes, 0, 1)[1].accuracy
    own = fit_and_score("lr", val, np.ravel(dataset.val.labels), test, test_labels, classes, 0, 1)[1].accuracy
    majority = np.bincount(labels).argmax()
    chance = float((test_labels == majority).mean())
    print(f"plain encodings {plain:.3f}, the server's own split alone {own:.3f}, majority {chance:.3f}")
    print("size  epsilon  un-noised test        noised test           LR that ignores the noise")
    curves: dict[int, list[tuple[float, list[float], list[float]]]] = {}
    for size in SIZES:
        projection = public_projection(val, size)
        rows, test_rows = (project_and_clip(part, projection) for part in (train, test))
        for epsilon in EPSILONS:
            sigma = calibrate_encoding_noise(epsilon, DELTA)
            found: list[tuple[float, float, float]] = []
            for draw in range(arguments.draws):
                stream = seeded_stream(draw, size)
                released, released_test = noised(rows, sigma, stream), noised(test_rows, sigma, stream)
                learned = moments(released, labels, classes, sigma, 0.0)
                for_plain, for_noised = (classifier_of(learned, noised_input=kind) for kind in (False, True))
                naive = fit_and_score("lr", released, labels, test_rows, test_labels, classes, 0, 1)[
                    1
                ].accuracy
                found.append(
                    (
                        score(test_labels, for_plain.scores(test_rows.astype(np.float32))).accuracy,
                        score(test_labels, for_noised.scores(released_test)).accuracy,
                        naive,
                    )
                )
            columns = list(zip(*found, strict=True))
            spread = "  ".join(
                f"{np.mean(column):.3f} ({min(column):.3f}-{max(column):.3f})" for column in columns
            )
            print(f"{size:4d}  {epsilon:7g}  {spread}", flush=True)
            curves.setdefault(size, []).append((epsilon, list(columns[0]), list(columns[1])))
    _draw(curves, plain, own, chance, dataset.source.label, OUTPUT)


def _draw(
    curves: dict[int, list[tuple[float, list[float], list[float]]]],
    plain: float,
    own: float,
    chance: float,
    label: str,
    path: Path,
) -> None:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    styles = zip(curves.items(), OKABE_ITO, ("o", "s", "^", "D"), strict=False)
    for (size, points), colour, marker in styles:
        epsilons = [epsilon for epsilon, _, _ in points]
        for column, panel in enumerate(axes, start=1):
            values = [point[column] for point in points]
            means = [np.mean(value) for value in values]
            spread = np.abs(np.array([[min(v), max(v)] for v in values]).T - means)
            panel.errorbar(
                epsilons, means, yerr=spread, color=colour, marker=marker, capsize=2, label=f"{size} numbers"
            )
    for panel, heading in zip(
        axes, ("classifier used where the image is", "new encodings noised too"), strict=True
    ):
        for value, name, style, at in (
            (plain, "plain encodings, no guarantee", "-", EPSILONS[0]),
            (own, "the server's own split alone", "--", EPSILONS[0]),
            (chance, "largest class", ":", EPSILONS[-2]),
        ):
            panel.axhline(value, color="0.4", linestyle=style, linewidth=1)
            panel.annotate(name, (at, value), xytext=(0, 2), textcoords="offset points", fontsize=8)
        panel.set_xscale("log", base=2)
        panel.set_xticks(EPSILONS, [f"{epsilon:g}" for epsilon in EPSILONS])
        panel.set_xlabel("epsilon of the encodings (replace-one, delta 1e-5)")
        panel.set_title(heading, fontsize=10)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on the official test split")
    axes[1].legend(loc="center right", fontsize=8)
    figure.suptitle(f"Learned from noised encodings - {label}", fontsize=11)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
