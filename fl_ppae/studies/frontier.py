"""The frontier of a paper study, for its report and for `recommend`: what no other configuration beats."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fl_ppae.studies.summary import Group


def frontier(groups: Iterable[Group]) -> list[Group]:
    """The configurations that no other one of the same data set beats, in the order given.

    One beats another if it is at least as good in each of three coordinates and better in one: mean accuracy
    on the test split (more is better), guaranteed epsilon of the encoder updates (less), and mean SSIM of the
    best attacker's inversions (less). The guaranteed epsilon is infinite without a guarantee, so a nominal
    epsilon counts as no DP. Exact ties all stay. Not ranked, so that they beat nothing either: baselines,
    whose encoder no hospital trained, and configurations without an accuracy or an SSIM.
    """
    candidates = ranked(groups)
    return [one for one in candidates if not any(_beats(other, one) for other in candidates)]


def ranked(groups: Iterable[Group]) -> list[Group]:
    """Those with a trained encoder, an accuracy and an SSIM."""
    return [group for group in groups if group.trained and {"accuracy", "inversion_ssim"} <= set(group.means)]


def _beats(one: Group, other: Group) -> bool:
    if one.keys["dataset"] != other.keys["dataset"]:
        return False
    places = _place(one), _place(other)
    return places[0] != places[1] and all(mine <= its for mine, its in zip(*places, strict=True))


def _place(group: Group) -> tuple[float, float, float]:
    """Negative accuracy, guaranteed epsilon and SSIM: less is better in each."""
    epsilon = group.value("epsilon") if group.formal else None
    means = group.means
    return -means["accuracy"].value, math.inf if epsilon is None else epsilon, means["inversion_ssim"].value
