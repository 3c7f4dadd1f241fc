"""Choosing a configuration from a paper study under bounds on accuracy, epsilon and leakage.

A choice holds means over seeds. Its epsilon covers the encoder updates only. Images encoded later and
encodings shared in the clear have no guarantee: the study measured their leakage with its own attackers,
and a stronger one may do better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fl_ppae.studies.paper_grid import TUNED
from fl_ppae.studies.summary import Group


@dataclass(frozen=True)
class Requirements:
    """Upper bounds on epsilon and on the attacker's mean SSIM, and a lower bound on accuracy."""

    max_epsilon: float
    max_ssim: float
    min_accuracy: float
    formal_only: bool


@dataclass(frozen=True)
class Choice:
    """One trained configuration.

    Attributes:
        epsilon: infinite without DP. status: `formal`, `nominal` or `none`.
        fc_size: size of an encoding of `fc` and `fc-deep` at the study's scale; 0: their default.
    """

    keys: dict[str, str]
    seeds: int
    accuracy: float
    epsilon: float
    ssim: float
    status: str
    fc_size: int = 0

    def overrides(self) -> str:
        """The `-c` options that select it for a simulation; rounds and batch size stay the simulation's."""
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
class NearMiss:
    """A choice, the requirements it violates, and the sum of the violations relative to their bounds."""

    choice: Choice
    violations: tuple[str, ...]
    distance: float


def choice(group: Group, fc_size: int = 0) -> Choice:
    """A configuration from `frontier.ranked` as a choice."""
    means, keys = group.means, group.keys
    epsilon = means["epsilon"].value if "epsilon" in means else math.inf
    accuracy, ssim = means["accuracy"].value, means["inversion_ssim"].value
    return Choice(keys, group.seeds, accuracy, epsilon, ssim, keys["epsilon_status"], fc_size)


def without_training(groups: Iterable[Group], max_ssim: float) -> Group | None:
    """The most accurate baseline that uses no hospital's records and leaks at most this much."""
    fitting = [
        group
        for group in groups
        if group.keys["encoding"] in ("random", "pca", "scatternet")
        and {"accuracy", "inversion_ssim"} <= set(group.means)
        and group.means["inversion_ssim"].value <= max_ssim
    ]
    return max(fitting, key=lambda group: group.means["accuracy"].value, default=None)


def meets(one: Choice, required: Requirements) -> bool:
    """Whether it meets the requirements."""
    return not _violations(one, required)


def pick(candidates: Sequence[Choice], required: Requirements) -> Choice | None:
    """The most accurate that meets the requirements; ties go to low leakage, a guarantee, low epsilon."""

    def rank(one: Choice) -> tuple[float, float, bool, float]:
        return one.accuracy, -one.ssim, one.status == "formal", -one.epsilon

    return max((one for one in candidates if meets(one, required)), key=rank, default=None)


def nearest(candidates: Sequence[Choice], required: Requirements) -> NearMiss | None:
    """The choice with the smallest sum of relative violations; None without candidates."""
    misses = [(one, _violations(one, required)) for one in candidates]
    found = [
        NearMiss(one, tuple(text for text, _ in gaps), sum(gap for _, gap in gaps)) for one, gaps in misses
    ]
    return min(found, key=lambda miss: (miss.distance, -miss.choice.accuracy), default=None)


def _violations(one: Choice, required: Requirements) -> list[tuple[str, float]]:
    gaps = []
    if math.isinf(one.epsilon):
        gaps.append(("it has no DP, so no epsilon at all", 1e3))
    elif required.formal_only and one.status != "formal":
        gaps.append((f"its epsilon is {one.status}, not a guarantee", 1.0))
    if required.max_epsilon < one.epsilon < math.inf:
        over = one.epsilon / required.max_epsilon - 1
        gaps.append((f"epsilon {one.epsilon:.2f} is above {required.max_epsilon:g}", over))
    if one.ssim > required.max_ssim:
        over = (one.ssim - required.max_ssim) / max(required.max_ssim, 1e-3)
        gaps.append((f"inversion SSIM {one.ssim:.3f} is above {required.max_ssim:g}", over))
    if one.accuracy < required.min_accuracy:
        under = (required.min_accuracy - one.accuracy) / required.min_accuracy
        gaps.append((f"accuracy {one.accuracy:.3f} is below {required.min_accuracy:g}", under))
    return gaps
