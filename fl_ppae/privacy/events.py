"""Private releases as immutable data: which mechanism ran, not what it cost.

`privacy.accounting` computes the cost and says under which neighbours. Noise multipliers are standard
deviations in units of the clipping norm, for gradients and for encodings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

TRAIN_PART, TEST_PART = PARTS = ("train", "test")


@dataclass(frozen=True)
class PoissonGaussian:
    """`steps` releases of a noised sum of clipped gradients over Poisson-sampled batches.

    Attributes:
        noise_multiplier: standard deviation of the noise / max grad norm; > 0.
        sample_rate: probability with which each record joins a batch, in (0, 1].
        steps: number of noised sums, >= 1; empty batches count.
        round: the server round that requested it, from 1.

    Raises:
        ValueError: a value outside its range.
    """

    mechanism: ClassVar[str] = "poisson-gaussian"
    noise_multiplier: float
    sample_rate: float
    steps: int
    round: int

    def __post_init__(self) -> None:
        _positive("noise_multiplier", self.noise_multiplier)
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"sample_rate must be in (0, 1], not {self.sample_rate}")
        _at_least_one("steps", self.steps)
        _at_least_one("round", self.round)


@dataclass(frozen=True)
class Gaussian:
    """One release of the encodings of all records of `part`, each clipped, with independent noise.

    Attributes:
        noise_multiplier: standard deviation of the noise / clipping norm of an encoding; > 0.
        part: train or test; their records are disjoint.
        round: the last round before the release, from 1.

    Raises:
        ValueError: a value outside its range.
    """

    mechanism: ClassVar[str] = "gaussian"
    noise_multiplier: float
    part: str
    round: int

    def __post_init__(self) -> None:
        _positive("noise_multiplier", self.noise_multiplier)
        if self.part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, not {self.part!r}")
        _at_least_one("round", self.round)


@dataclass(frozen=True)
class RandomisedResponse:
    """One release of the labels of all train records, each true or randomly replaced.

    Attributes:
        epsilon: log of the ratio of P(true label) to P(any one other); > 0.
        classes: number of possible labels, >= 2.
        round: the last round before the release, from 1.

    Raises:
        ValueError: a value outside its range.
    """

    mechanism: ClassVar[str] = "randomised-response"
    epsilon: float
    classes: int
    round: int

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, not {self.classes}")
        _at_least_one("round", self.round)


Event = PoissonGaussian | Gaussian | RandomisedResponse
MECHANISMS = {kind.mechanism: kind for kind in (PoissonGaussian, Gaussian, RandomisedResponse)}
_TYPES = {"float": float, "int": int, "str": str}


def as_dict(event: Event) -> dict[str, str | float | int]:
    """The JSON form used in `ledger.json` and in a hospital's ledger."""
    return {"mechanism": event.mechanism, **asdict(event)}


def from_dict(values: Mapping[str, object]) -> Event:
    """The inverse of `as_dict`.

    Raises:
        ValueError: the mechanism is unknown, or a key is missing, unknown or ill-typed.
    """
    mechanism = values.get("mechanism")
    kind = MECHANISMS.get(mechanism) if isinstance(mechanism, str) else None
    if kind is None:
        raise ValueError(f"mechanism {mechanism!r} of an event is unknown; valid: {', '.join(MECHANISMS)}")
    wanted = {field.name: _TYPES[str(field.type)] for field in fields(kind)}
    if set(values) != {"mechanism", *wanted}:
        raise ValueError(f"an event has the keys mechanism, {', '.join(wanted)}, not {', '.join(values)}")
    typed = {name: _typed(name, values[name], wanted[name]) for name in wanted}
    event: Event = kind(**typed)  # type: ignore[arg-type]
    return event


def updates(events: Iterable[Event]) -> tuple[PoissonGaussian, ...]:
    """The events that paid for encoder updates."""
    return tuple(event for event in events if isinstance(event, PoissonGaussian))


def merge(events: Iterable[PoissonGaussian]) -> tuple[tuple[float, float, int], ...]:
    """Events as sorted `(noise_multiplier, sample_rate, steps)`; composition ignores order and round."""
    totals: dict[tuple[float, float], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sample_rate)
        totals[key] = totals.get(key, 0) + event.steps
    return tuple((sigma, rate, steps) for (sigma, rate), steps in sorted(totals.items()))


def _typed(name: str, value: object, kind: type) -> object:
    if isinstance(value, bool) or not isinstance(value, (float, int) if kind is float else kind):
        raise ValueError(f"{name} of an event must be of type {kind.__name__}, not {value!r}")
    try:
        return kind(value)
    except OverflowError:
        raise ValueError(f"{name} of an event is too large") from None


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive, not {value}")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
