"""From what several trainings or uploads showed to a verdict about the claimed epsilon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fl_ppae.epsilon_audit.bounds import Guessed, least_refuted, refutes
from fl_ppae.privacy.trade_offs import Curve

REFUTED, CONSISTENT, CANNOT_TELL = "refuted", "consistent", "cannot-tell"


@dataclass(frozen=True)
class Family:
    """Claims to compare with what was seen: the ledger's with its noise times a scale; 1 is its own.

    Attributes:
        curve: the trade-off curve of the claim at a scale.
        epsilon: its epsilon, falling with the scale; 0 at an infinite one.
    """

    curve: Callable[[float], Curve]
    epsilon: Callable[[float], float]

    def lower_bound(self, runs: Sequence[Guessed], confidence: float) -> float:
        """The largest epsilon in the family that `runs` refute; 0 if they refute none."""
        return self.epsilon(least_refuted(lambda scale: refutes(runs, self.curve(scale), confidence)))


@dataclass(frozen=True)
class Finding:
    """What an audit of one artefact found, all at one confidence.

    Attributes:
        claimed: the epsilon that is audited.
        lower_bound: epsilon is at least this.
        largest_possible: the lower bound if every guess had been right.
        controls: lower bounds with faults planted, by fault.
        failed: tests that failed, beside the bound.
        right, made: guesses in all runs, by each share of canaries.
    """

    claimed: float
    lower_bound: float
    largest_possible: float
    controls: Mapping[str, float]
    failed: tuple[str, ...]
    right: tuple[int, ...]
    made: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """`refuted`; `consistent` only if each control and perfect guesses are; else `cannot-tell`."""
        if self.failed or self.lower_bound > self.claimed:
            return REFUTED
        able = self.largest_possible > self.claimed
        if able and all(verdict == REFUTED for verdict in self.control_verdicts.values()):
            return CONSISTENT
        return CANNOT_TELL

    @property
    def control_verdicts(self) -> dict[str, str]:
        """Whether the claim was refuted with each fault planted."""
        return {
            name: REFUTED if bound > self.claimed else CANNOT_TELL for name, bound in self.controls.items()
        }


def find(
    family: Family,
    claimed: float,
    runs: Sequence[Guessed],
    controls: Mapping[str, Sequence[Guessed]],
    failed: Sequence[str],
    confidence: float,
) -> Finding:
    """Bound epsilon from the guesses of `runs`, and of the same runs with faults planted."""
    perfect = [run.perfect() for run in runs]
    return Finding(
        claimed,
        family.lower_bound(runs, confidence),
        family.lower_bound(perfect, confidence),
        {name: family.lower_bound(guesses, confidence) for name, guesses in controls.items()},
        tuple(failed),
        tuple(map(sum, zip(*(run.right for run in runs), strict=True))),
        tuple(map(sum, zip(*(run.made for run in runs), strict=True))),
    )
