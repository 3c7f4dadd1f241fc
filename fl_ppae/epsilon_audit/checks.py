"""Tests beside the canaries' bound, on what an audit sees of a training: steps, sampling and noise.

The bound finds too large a cost, whatever its cause, but not small or hidden ones: a round that the ledger
forgot, a batch drawn in another way, noise that is used twice (which in the canaries' scores looks more
private). Each test is passed by a correct training except with probability below 1e-6.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from fl_ppae.epsilon_audit.canaries import Layout

_ERROR = 1e-6
_SIGMAS = 6.0  # two-sided probability 2e-9 of a normal number
_NEARLY_NORMAL = 25.0  # variance from which a binomial number is taken for a normal one
_PAIRED = 4096  # coordinates on which pairs of releases are compared

PASSED = "passed"


class Checks:
    """Collects what the tests need, step by step."""

    def __init__(self, layout: Layout) -> None:
        canaries = len(layout.coordinates)
        self._layout = layout
        self._drawn = np.zeros(canaries, np.int64)
        self._batches: list[int] = []
        self._squares: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []
        self._paired = np.unique(np.linspace(0, layout.starts[-1] - 1, _PAIRED).astype(np.int64))

    def drew(self, canaries: np.ndarray) -> None:
        """One step's batch contained these canaries' slots."""
        self._drawn[canaries] += 1
        self._batches.append(len(canaries))

    def released(self, sums: np.ndarray) -> None:
        """One step released these noised sums (d,)."""
        self._squares.append(np.add.reduceat(sums**2, self._layout.starts[:-1]))
        self._kept.append(sums[self._paired])

    def steps(self, claimed: int) -> str:
        """Whether the ledger paid for every step."""
        trained = len(self._batches)
        return PASSED if trained <= claimed else f"{trained} steps were trained, {claimed} are in the ledger"

    def sampling(self, rate: float) -> str:
        """Whether batches are drawn as the ledger says: each slot by itself, at `rate`, in every step."""
        slots, steps = len(self._drawn), len(self._batches)
        if rate == 1:
            return PASSED
        variance = rate * (1 - rate)
        total = (self._drawn.sum() - slots * steps * rate) / np.sqrt(slots * steps * variance)
        if total > _SIGMAS:
            seen = self._drawn.sum() / (slots * steps)
            return f"slots were drawn at rate {seen:.4f}, the ledger says {rate:.4f}"
        batches = ((np.array(self._batches) - slots * rate) ** 2).sum() / (slots * variance)
        tail = min(chi2.cdf(batches, steps), chi2.sf(batches, steps))
        if slots * variance >= _NEARLY_NORMAL and tail < _ERROR / 4:
            return "the sizes of batches vary otherwise than in Poisson sampling"
        draws = ((self._drawn - steps * rate) ** 2).sum() / (steps * variance)
        spread = slots * (2 + (1 - 6 * variance) / (steps * variance))  # binomial, by its fourth moment
        if abs(draws - slots) > _SIGMAS * np.sqrt(spread):
            return "the numbers of batches that a slot is in vary otherwise than in Poisson sampling"
        return PASSED

    def noise(self, std: float) -> str:
        """Whether each release, and each difference of two, spreads as its normal noise must at least.

        What is added to noise independently of it can only make a sum of squares larger (in distribution),
        so the lower tail of a chi-squared distribution bounds the probability of so small a one.
        """
        sizes = np.diff(self._layout.starts)
        singles = chi2.cdf(np.array(self._squares) / std**2, sizes)
        if singles.min() < _ERROR / (2 * singles.size):
            return "a release spreads less than its noise must"
        kept = np.array(self._kept)
        gram = kept @ kept.T
        of, to = np.triu_indices(len(kept), 1)
        distances = gram[of, of] + gram[to, to] - 2 * gram[of, to]
        if len(distances):
            pairs = chi2.cdf(distances / (2 * std**2), kept.shape[1])
            if pairs.min() < _ERROR / (2 * pairs.size):
                return "two releases differ by less than their noise must"
        return PASSED
