"""A lower bound on epsilon from guesses about canaries in a few trainings, against a trade-off curve.

Statement: if a mechanism keeps the claimed trade-off curve for adding or removing one record (or replacing
it, for a curve of that), `refutes` is true with probability at most 1 - confidence. One-sided: what
is not refuted is not proved. The probability is over the coins, the mechanism and the adversary.

Assumed: m canaries are fixed in advance and each is included by its own fair coin (or is one of two records,
by its coin); everything else is fixed or independent of the coins. The adversary sees the output, not the
coins, and guesses exactly g of the m coins, where g is fixed in advance.

Why, for one training (after Mahloujifar, Melis, Chaudhuri 2024, arXiv:2410.22235). Let T be the number of
right guesses, p_j = P[T = j], and L the curve: convex, L(0) = 0. Fix a canary i and a number k. Let R be
the event "i is guessed right and T >= k", W the event "i is guessed wrong and T >= k - 1". In both, at least
k - 1 others are guessed right, which is a test on the output and the other coins; only the coin of i differs.
So the curve applies to "i is guessed in" and to "i is guessed out", and as L is convex, P[W] >= L(P[R]).
The sum over i, again with convexity, is
    1/m sum_{j >= k-1} (g - j) p_j  >=  L(1/m sum_{j >= k} j p_j)    for every k = 1 ... g.    (*)
Suppose P[T >= c] >= level. Which p satisfies (*) with the least total mass? Moving mass from j to j - 1
lowers the right side and raises the left side of each later inequality, so the least p has all of `level` at
c and, below c, only what (*) forces: the recursion of `impossible`. If that exceeds 1, no p exists, so
P[T >= c] < level. More mass at c forces at least proportionally more, because L is convex and L(0) = 0.
Guesses about different canaries may depend on each other in any way; this costs most where a level is small,
so several independent trainings at a large level each are stronger than one. One training in ten may
fall short, so that a single unlucky one does not decide; `level_of_one` is the level at which that many
exceed it by chance with probability 1 - confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from fl_ppae.privacy.trade_offs import Curve

# Shares of the canaries that are guessed about, and of the error that each number of guesses may use. Few
# confident guesses tell most about a mechanism that keeps its promise, many about one without noise.
GUESSES = {0.1: 0.9, 0.5: 0.05, 1.0: 0.05}
_SCALES = 64  # tried per octave of noise: steps of 1.1 %
_COARSE = 32  # steps at once until a bound is between two of them
_LEAST, _MOST = -4 * _SCALES, 6 * _SCALES


@dataclass(frozen=True)
class Guessed:
    """The guesses in one training: for each share of `GUESSES`, how many were made and were right."""

    canaries: int
    made: tuple[int, ...]
    right: tuple[int, ...]

    def perfect(self) -> Guessed:
        """The same if every guess had been right."""
        return Guessed(self.canaries, self.made, self.made)


def guess(scores: np.ndarray, included: np.ndarray) -> Guessed:
    """Guess "in" for the highest scores and "out" for as many of the lowest, for each share of `GUESSES`.

    Args:
        scores: (m,), finite, higher for canaries that look included.
        included: (m,) bool, the coins.

    Raises:
        ValueError: fewer than 20 canaries, or a score that is not finite.
    """
    canaries = len(scores)
    if canaries < 20 or scores.shape != included.shape:
        raise ValueError(
            f"need one score for each of at least 20 coins, not {scores.shape} and {included.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    order = np.argsort(scores, kind="stable")
    halves = [int(share * canaries / 2) for share in GUESSES]
    right = [
        int((~included[order[:half]]).sum() + included[order[canaries - half :]].sum()) for half in halves
    ]
    return Guessed(canaries, tuple(2 * half for half in halves), tuple(right))


def impossible(right: int, made: int, canaries: int, level: float, curve: Curve) -> bool:
    """True if no mechanism with `curve` gets at least `right` of `made` right with probability `level`.

    `rights` and `wrongs` are the sums of (*) over what has been placed so far.
    """
    rights, wrongs = level * right / canaries, level * (made - right) / canaries
    for below in range(right - 1, -1, -1):
        forced = curve(rights)
        if forced <= wrongs:
            return False  # nothing is forced here, nor further below
        rights += below / (made - below) * (forced - wrongs)
        wrongs = forced
        if rights + wrongs > made / canaries:
            return True
    return False


def refutes(trainings: Sequence[Guessed], curve: Curve, confidence: float) -> bool:
    """True if enough trainings have more right guesses than `curve` allows; see the top of this file.

    Raises:
        ValueError: no training, or a confidence outside (0, 1).
    """
    level = level_of_one(len(trainings), confidence)
    exceeding = sum(
        any(
            impossible(right, made, each.canaries, share * level, curve)
            for right, made, share in zip(each.right, each.made, GUESSES.values(), strict=True)
        )
        for each in trainings
    )
    return exceeding >= _enough(len(trainings))


def level_of_one(trainings: int, confidence: float) -> float:
    """The level u of each training: enough of them exceed it with probability 1 - `confidence` at most.

    P[Binomial(trainings, u) >= enough] = 1 - confidence, solved by the beta distribution.

    Raises:
        ValueError: no training, or a confidence outside (0, 1).
    """
    if trainings < 1 or not 0 < confidence < 1:
        raise ValueError(f"need trainings and a confidence in (0, 1), not {trainings} and {confidence}")
    enough = _enough(trainings)
    return float(beta.ppf(1 - confidence, enough, trainings - enough + 1))


def _enough(trainings: int) -> int:
    return trainings - trainings // 10


def least_refuted(refuted: Callable[[float], bool]) -> float:
    """The least noise, in units of the ledger's, at which a claim is refuted, among 64 scales an octave.

    `refuted(s)`: whether the claim of the ledger with its noise times s is; true for all s above some scale.
    The result is `inf` if not even the claim of 64 times the noise is refuted.
    """

    def at(step: int) -> bool:
        return refuted(2 ** (step / _SCALES))

    high = 0
    while not at(high):
        high += _COARSE
        if high > _MOST:
            return math.inf
    low = high - _COARSE
    while high <= 0 and low > _LEAST and at(low):
        low, high = low - _COARSE, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle) else (middle, high)
    return float(2 ** (high / _SCALES))
