"""Choosing a configuration from a paper study: bounds on accuracy, epsilon and leakage, and a pick.

A choice is a mean over seeds. Its epsilon is that of the encoder updates: it says nothing about the images
that are encoded later, nor about encodings that leave in the clear; for those there is only the leakage
that one study's attacker measured, which bounds no other attacker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fl_ppae.studies.paper_grid import TUNED
from fl_ppae.studies.summary import Group


@dataclass(frozen=True)
class Wish:
    """What is asked for: upper bounds on epsilon and on the attacker's mean SSIM, a lower on accuracy."""

    max_epsilon: float
    max_ssim: float
    min_accuracy: float
    formal_only: bool


@dataclass(frozen=True)
class Choice:
    """One trained configuration. `epsilon` is infinite without DP; `status` is what it is worth.

    `fc_size`: numbers in an encoding of `fc` and `fc-deep` at the study's scale; 0: their own.
    """

    keys: dict[str, str]
    seeds: int
    accuracy: float
    epsilon: float
    ssim: float
    status: str
    fc_size: int = 0

    def overrides(self) -> str:
        """The `-c` pairs that ask a simulation of this data set for it; rounds and batch are its own."""
        keys, tuned = self.keys, TUNED[self.keys["autoencoder"]]
        pairs = {"autoencoder": keys["autoencoder"], "classifier": keys["classifier"]}
        if keys["autoencoder"].startswith("fc") and self.fc_size:
            pairs["encoding-size"] = str(self.fc_size)
        pairs["dp-scope"] = keys["scope"]
        if math.isfinite(self.epsilon):
            pairs["target-epsilon"] = keys["privacy"]
        pairs |= {"learning-rate": f"{tuned.learning_rate:g}", "max-grad-norm": f"{tuned.max_grad_norm:g}"}
        pairs["share"] = "updates+encodings"
        return " ".join(f"-c {key}={value}" for key, value in pairs.items())


@dataclass(frozen=True)
class Miss:
    """How a choice fails a wish: what gives way, each with its distance from the bound as a share of it."""

    choice: Choice
    gives_way: tuple[str, ...]
    distance: float


def choice(group: Group, fc_size: int = 0) -> Choice:
    """A configuration that `frontier.ranked` has let through."""
    means, keys = group.means, group.keys
    epsilon = means["epsilon"].value if "epsilon" in means else math.inf
    accuracy, ssim = means["accuracy"].value, means["inversion_ssim"].value
    return Choice(keys, group.seeds, accuracy, epsilon, ssim, keys["epsilon_status"], fc_size)


def without_training(groups: Iterable[Group], max_ssim: float) -> Group | None:
    """The most accurate baseline that no hospital's record has touched, with at most this leakage."""
    fitting = [
        group
        for group in groups
        if group.keys["encoding"] in ("random", "pca", "scatternet")
        and {"accuracy", "inversion_ssim"} <= set(group.means)
        and group.means["inversion_ssim"].value <= max_ssim
    ]
    return max(fitting, key=lambda group: group.means["accuracy"].value, default=None)


def fits(one: Choice, wish: Wish) -> bool:
    """Whether it satisfies the wish."""
    return not _misses(one, wish)


def pick(candidates: Sequence[Choice], wish: Wish) -> Choice | None:
    """The most accurate that satisfies the wish; of equals: least leakage, a guarantee, least epsilon."""

    def rank(one: Choice) -> tuple[float, float, bool, float]:
        return one.accuracy, -one.ssim, one.status == "formal", -one.epsilon

    return max((one for one in candidates if fits(one, wish)), key=rank, default=None)


def nearest(candidates: Sequence[Choice], wish: Wish) -> Miss | None:
    """What misses the wish by the least, summed over the bounds in shares of each; None if there are none."""
    misses = [(one, _misses(one, wish)) for one in candidates]
    found = [Miss(one, tuple(text for text, _ in gaps), sum(gap for _, gap in gaps)) for one, gaps in misses]
    return min(found, key=lambda miss: (miss.distance, -miss.choice.accuracy), default=None)


def _misses(one: Choice, wish: Wish) -> list[tuple[str, float]]:
    gaps = []
    if math.isinf(one.epsilon):
        gaps.append(("it has no DP, so no epsilon at all", 1e3))
    elif wish.formal_only and one.status != "formal":
        gaps.append((f"its epsilon is {one.status}, not a guarantee", 1.0))
    if wish.max_epsilon < one.epsilon < math.inf:
        over = one.epsilon / wish.max_epsilon - 1
        gaps.append((f"epsilon {one.epsilon:.2f} is above {wish.max_epsilon:g}", over))
    if one.ssim > wish.max_ssim:
        over = (one.ssim - wish.max_ssim) / max(wish.max_ssim, 1e-3)
        gaps.append((f"inversion SSIM {one.ssim:.3f} is above {wish.max_ssim:g}", over))
    if one.accuracy < wish.min_accuracy:
        under = (wish.min_accuracy - one.accuracy) / wish.min_accuracy
        gaps.append((f"accuracy {one.accuracy:.3f} is below {wish.min_accuracy:g}", under))
    return gaps
