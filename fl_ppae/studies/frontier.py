"""The frontier of accuracy, epsilon and leakage of a paper study, for its report and `recommend`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fl_ppae.studies.summary import Group


def frontier(groups: Iterable[Group]) -> list[Group]:
    """The configurations that no other configuration of the same data set dominates, in the order given.

    One dominates another if it is at least as good in all three coordinates and better in one: mean accuracy
    on the test split (higher is better), guaranteed epsilon of the encoder updates (lower), and mean SSIM of
    the best inversion attacker (lower). The guaranteed epsilon is infinite without a guarantee, so a nominal
    epsilon counts the same as no DP. Exact ties are all kept. Baselines, and configurations without an
    accuracy or an SSIM, are not ranked: they are not on the frontier and dominate nothing.
    """
    candidates = ranked(groups)
    return [one for one in candidates if not any(_dominates(other, one) for other in candidates)]


def ranked(groups: Iterable[Group]) -> list[Group]:
    """The configurations with a trained encoder, an accuracy and an SSIM."""
    return [group for group in groups if group.trained and {"accuracy", "inversion_ssim"} <= set(group.means)]


def _dominates(one: Group, other: Group) -> bool:
    if one.keys["dataset"] != other.keys["dataset"]:
        return False
    places = _place(one), _place(other)
    return places[0] != places[1] and all(mine <= its for mine, its in zip(*places, strict=True))


def _place(group: Group) -> tuple[float, float, float]:
    """Negative accuracy, guaranteed epsilon and SSIM; lower is better in each."""
    epsilon = group.value("epsilon") if group.formal else None
    means = group.means
    return -means["accuracy"].value, math.inf if epsilon is None else epsilon, means["inversion_ssim"].value
