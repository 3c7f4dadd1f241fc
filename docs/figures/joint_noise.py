"""Draw docs/joint_noise.png: what joint noise costs, by how many hospitals are honest and by its share.

    python docs/figures/joint_noise.py

The setting is that of `bloodmnist_iid` with 5 hospitals, in rounds of one step. The numbers are computed by
PLD, from no data, and printed too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fl_ppae.plotting import OKABE_ITO
from fl_ppae.privacy.accounting import epsilon_alone, pld
from fl_ppae.privacy.calibration import calibrate_noise_multiplier
from fl_ppae.privacy.events import JointGaussian

OUTPUT = Path(__file__).parents[1] / "joint_noise.png"
SAMPLE_RATE, STEPS, DELTA = 0.4375, 60, 1e-5
HONEST = (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 50, 80, 100)
ALONE = (4.0, 8.0, 16.0)
CHOICES = (3, 5, 16, 80)
TARGETS = (0.5, 1.0, 2.0, 4.0, 8.0)


def by_honest(alone: float, honest: Sequence[int] = HONEST) -> list[float]:
    """Epsilon under each number of honest hospitals, if a share alone has epsilon `alone`."""
    share = calibrate_noise_multiplier(SAMPLE_RATE, STEPS, alone, DELTA)
    return [pld(((share * math.sqrt(count), SAMPLE_RATE, STEPS),), DELTA) for count in honest]


def alone_at(target: float, honest: int) -> float:
    """Epsilon if all others collude, of shares that have `target` under `honest` honest hospitals."""
    sigma = calibrate_noise_multiplier(SAMPLE_RATE, STEPS, target, DELTA, honest)
    return epsilon_alone([JointGaussian(sigma, honest, SAMPLE_RATE, STEPS, 1)], DELTA)


def main() -> int:
    """Compute, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    print("epsilon by honest hospitals:", *HONEST)
    for alone, colour in zip(ALONE, OKABE_ITO[::2], strict=False):
        found = by_honest(alone)
        print(f"share of epsilon {alone:g}:", *(f"{value:.2f}" for value in found))
        left.plot(HONEST, found, marker="o", color=colour, label=f"{alone:g} if all others collude")
    _label(
        left,
        "The same shares, and so the same utility",
        "honest hospitals in a round",
        "epsilon if so many are honest",
    )
    print("epsilon if all others collude, at targets:", *TARGETS)
    for honest, colour in zip(CHOICES, OKABE_ITO, strict=False):
        found = [alone_at(target, honest) for target in TARGETS]
        print(f"{honest} honest:", *(f"{value:.2f}" for value in found))
        right.plot(TARGETS, found, marker="o", color=colour, label=f"{honest} honest")
    right.plot(TARGETS, TARGETS, color="black", linestyle=":", label="own noise")
    _label(
        right,
        "The size of the shares is a choice",
        "epsilon if so many are honest",
        "epsilon if all others collude",
    )
    figure.suptitle(f"{STEPS} steps, sample rate {SAMPLE_RATE:g}, delta {DELTA:g}; computed, no data")
    figure.savefig(arguments.output, dpi=110)
    return 0


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
