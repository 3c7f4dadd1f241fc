"""A lower bound on epsilon from guesses about canaries, in one training run (arXiv:2305.08846).

Statement: if a mechanism is (epsilon, delta)-differentially private for adding or removing one record,
`lower_bound` exceeds epsilon with probability at most 1 - confidence. One-sided: the bound may lie
anywhere below epsilon, and a small one shows nothing. The probability is over the coins that put
canaries in, the mechanism's own randomness and the adversary's.

Assumed:
- `canaries` records are fixed before training, and each is included by its own fair coin. All else
  (the other records, the number of slots, the plan) is fixed or independent of these coins.
- The adversary sees any output of the mechanism, and may know the canaries and the other records; it
  does not see the coins. It says "in" or "out" for exactly `guesses` canaries.
- `guesses` is fixed before anything is seen, or corrected for: `best_bound` tries a short list of
  numbers fixed beforehand, each at a share of the error (Bonferroni).

Why (Theorem 5.2, Corollary 5.4): given what the adversary saw and the coins before it, Bayes' rule lets
a guess be right with probability at most p = e^epsilon / (1 + e^epsilon), so the right ones are
stochastically at most W ~ Binomial(guesses, p). With delta > 0 that fails on events which add F right
guesses, where F depends only on what was seen and is at most 2 * canaries * delta in expectation. Then
    P[right >= v] <= P[W + F >= v] <= P[W >= v] + E[F] * max_i P[v - i <= W < v] / i,
because P[W + i >= v] = P[W >= v] + P[v - i <= W < v]. At delta 0 this is the Clopper-Pearson bound on p.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, binom

GUESSED_SHARES = (0.1, 1 / 3, 1.0)  # of the canaries; see `guess_counts`
MOST_CANARIES = 100_000  # that are suggested


@dataclass(frozen=True)
class Bound:
    """What one audit shows.

    Attributes:
        guesses, correct: the number of guesses that gave the bound, and how many were right.
        epsilon: lower bound at the stated confidence, >= 0.
        refutable: the bound if every guess had been right: no larger epsilon could have been refuted.
    """

    guesses: int
    correct: int
    epsilon: float
    refutable: float


def p_value(epsilon: float, delta: float, canaries: int, guesses: int, correct: int) -> float:
    """Largest probability, under (epsilon, delta)-DP, of at least `correct` right of `guesses`.

    Raises:
        ValueError: not 0 <= correct <= guesses <= canaries, or delta outside [0, 1).
    """
    _check(delta, canaries, guesses, correct)
    right = float(expit(epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return tail
    extra = np.arange(1, correct + 1)
    below = np.cumsum(binom.pmf(correct - extra, guesses, right))  # P[correct - i <= W < correct]
    return float(min(1.0, tail + 2 * canaries * delta * (below / extra).max()))


@lru_cache(maxsize=4096)
def lower_bound(correct: int, guesses: int, *, confidence: float, delta: float, canaries: int) -> float:
    """The largest epsilon that `correct` right guesses refute at `confidence`; 0 if they refute none.

    All right at confidence 0.95 and delta 0: 100 guesses give 3.49, 1,000 give 5.81.

    Raises:
        ValueError: as `p_value`, or a confidence outside (0, 1).
    """
    _check(delta, canaries, guesses, correct)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    if correct == 0:
        return 0.0
    # Clopper-Pearson: exact at delta 0, and above it never less than the bound.
    high = max(0.0, float(logit(beta.ppf(1 - confidence, correct, guesses - correct + 1))))
    if delta == 0:
        return high

    def refuted(epsilon: float) -> bool:
        return p_value(epsilon, delta, canaries, guesses, correct) <= 1 - confidence

    low = 0.0
    if not refuted(low):
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def guess_counts(canaries: int) -> tuple[int, ...]:
    """The numbers of guesses to try, all even; they depend on the number of canaries alone.

    A few confident guesses are best against a mechanism that keeps its promise, guesses about all canaries
    against one without noise.

    Raises:
        ValueError: fewer than two canaries.
    """
    if canaries < 2:
        raise ValueError(f"an audit needs at least 2 canaries, not {canaries}")
    return tuple(sorted({2 * max(1, int(share * canaries / 2)) for share in GUESSED_SHARES}))


def best_bound(scores: np.ndarray, included: np.ndarray, *, confidence: float, delta: float) -> Bound:
    """Guess "in" for the highest scores and "out" for as many of the lowest; abstain on the rest.

    Args:
        scores: (m,), finite, higher for canaries that look included.
        included: (m,) bool, the coins.

    Raises:
        ValueError: scores that are not finite, or that don't match the coins.
    """
    if scores.shape != included.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} and coins {included.shape} must be of one length")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    canaries = len(scores)
    order = np.argsort(scores, kind="stable")
    counts = guess_counts(canaries)
    each = 1 - (1 - confidence) / len(counts)
    found = []
    for guesses in counts:
        half = guesses // 2
        correct = int((~included[order[:half]]).sum() + included[order[-half:]].sum())
        epsilon = lower_bound(correct, guesses, confidence=each, delta=delta, canaries=canaries)
        found.append((epsilon, correct / guesses, correct, guesses))
    epsilon, _, correct, guesses = max(found)
    return Bound(guesses, correct, epsilon, refutable(canaries, confidence=confidence, delta=delta))


def refutable(canaries: int, *, confidence: float, delta: float) -> float:
    """The bound of `best_bound` if every guess were right."""
    counts = guess_counts(canaries)
    each = 1 - (1 - confidence) / len(counts)
    return max(lower_bound(r, r, confidence=each, delta=delta, canaries=canaries) for r in counts)


def canaries_needed(epsilon: float, *, confidence: float, delta: float) -> int | None:
    """The fewest canaries (to 1 %) whose perfect guesses refute `epsilon`; None above `MOST_CANARIES`."""
    low, high = 1, 2
    while refutable(high, confidence=confidence, delta=delta) <= epsilon:
        low, high = high, 2 * high
        if high > MOST_CANARIES:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        enough = refutable(middle, confidence=confidence, delta=delta) > epsilon
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(delta: float, canaries: int, guesses: int, correct: int) -> None:
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"need 0 <= correct <= guesses <= canaries, not {correct}, {guesses}, {canaries}")
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), not {delta}")
