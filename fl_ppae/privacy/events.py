"""A release of something private, as immutable data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

POISSON_GAUSSIAN = "poisson-gaussian"


@dataclass(frozen=True)
class Event:
    """`steps` releases of a noised sum of clipped gradients over Poisson-sampled batches.

    Attributes:
        noise_multiplier: standard deviation of the noise / L2 sensitivity of the sum; > 0.
        sample_rate: probability with which each record joins a batch, in (0, 1].
        steps: number of noised sums, >= 1; empty batches count.
        round: the server round that asked for it, from 1.

    Raises:
        ValueError: a value outside its range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    round: int
    mechanism: str = POISSON_GAUSSIAN

    def __post_init__(self) -> None:
        if self.mechanism != POISSON_GAUSSIAN:
            raise ValueError(f"mechanism {self.mechanism!r} is unknown; valid: {POISSON_GAUSSIAN!r}")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise ValueError(f"noise_multiplier must be positive, not {self.noise_multiplier}")
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"sample_rate must be in (0, 1], not {self.sample_rate}")
        if self.steps < 1 or self.round < 1:
            raise ValueError(f"steps and round must be at least 1, not {self.steps} and {self.round}")

    def as_dict(self) -> dict[str, str | float | int]:
        """JSON form, as it stands in `ledger.json` and in a hospital's ledger."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Event:
        """The inverse of `as_dict`.

        Raises:
            ValueError: keys are missing, unknown or ill-typed.
        """
        fields = {
            "mechanism": str,
            "noise_multiplier": float,
            "sample_rate": float,
            "steps": int,
            "round": int,
        }
        if set(values) != set(fields):
            raise ValueError(f"an event has the keys {', '.join(fields)}, not {', '.join(map(str, values))}")
        typed = {}
        for name, kind in fields.items():
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, (kind, int) if kind is float else kind):
                raise ValueError(f"{name} of an event must be of type {kind.__name__}, not {value!r}")
            try:
                typed[name] = float(value) if kind is float else value  # type: ignore[arg-type]
            except OverflowError:
                raise ValueError(f"{name} of an event is too large") from None
        return cls(**typed)  # type: ignore[arg-type]


def merge(events: Iterable[Event]) -> tuple[tuple[float, float, int], ...]:
    """Events as sorted `(noise_multiplier, sample_rate, steps)`: composition ignores order and round."""
    totals: dict[tuple[float, float], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sample_rate)
        totals[key] = totals.get(key, 0) + event.steps
    return tuple((sigma, rate, steps) for (sigma, rate), steps in sorted(totals.items()))
