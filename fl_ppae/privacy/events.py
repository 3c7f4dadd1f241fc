"""Releases as immutable data: which mechanism ran, or that none did, but not what it cost.

`privacy.accounting` computes the cost and says under which neighbours. Noise multipliers are standard
deviations in units of the clipping norm, for gradients and for encodings.

Code that selects events unpacks `by_kind`. A further kind lengthens its result, so that every such place
fails until it says what the kind means there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, assert_never

from fl_ppae.privacy.scopes import SCOPES

TRAIN_PART, TEST_PART = PARTS = ("train", "test")
UPDATES, ENCODINGS, LABELS, DIAGNOSTICS = ARTEFACTS = ("updates", "encodings", "labels", "diagnostics")
THIS_RUN = "this-run"
"""What `ledger.json` calls the run that it belongs to, so that two runs of one seed write the same bytes."""
MOST_HONEST = 1_000  # what a message may claim; so no accountant is asked about a share of nearly no noise


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
class JointGaussian:
    """`steps` noised sums over all hospitals of a round; nobody sees one hospital's part of them.

    Each part is a sum of clipped gradients over a Poisson-sampled batch, plus the hospital's share of the
    noise: 1 / `honest` of its variance. So the numbers below hold if at least `honest` hospitals in a round
    keep their shares to themselves. They are charged whoever takes part in the round.

    Attributes:
        noise_multiplier: standard deviation of the noise of `honest` hospitals together / max grad norm; > 0.
        honest: hospitals assumed honest in a round, this one included, 1 to `MOST_HONEST`.
        sample_rate, steps, round: as of `PoissonGaussian`; one public sample rate for all hospitals.

    Raises:
        ValueError: a value outside its range.
    """

    mechanism: ClassVar[str] = "joint-gaussian"
    noise_multiplier: float
    honest: int
    sample_rate: float
    steps: int
    round: int

    def __post_init__(self) -> None:
        if not 1 <= self.honest <= MOST_HONEST:
            raise ValueError(f"honest must be in 1 to {MOST_HONEST}, not {self.honest}")
        PoissonGaussian(self.noise_multiplier, self.sample_rate, self.steps, self.round)  # the same ranges


@dataclass(frozen=True)
class Gaussian:
    """One release of the encodings of all records of `part`, each clipped, with independent noise.

    Attributes:
        noise_multiplier: standard deviation of the noise / clipping norm of an encoding; > 0.
        part: train or test.
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
        _one_of("part", self.part, PARTS)
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


@dataclass(frozen=True)
class Unprotected:
    """One release without a guarantee: its cost is infinite.

    An update under scope encoder is one, beside the `PoissonGaussian` that holds its nominal numbers.

    Attributes:
        artefact: updates, encodings, labels or diagnostics.
        scope: the run's dp-scope.
        part: whose records it shows, train or test.
        run: the run's identity: 1 to 64 letters, digits, dots, dashes and underscores, because a hospital
            sends it and a card prints it.
        round: the round that requested it; for encodings and labels the last round before the release.

    Raises:
        ValueError: a value outside its range.
    """

    mechanism: ClassVar[str] = "unprotected"
    artefact: str
    scope: str
    part: str
    run: str
    round: int

    def __post_init__(self) -> None:
        _one_of("artefact", self.artefact, ARTEFACTS)
        _one_of("scope", self.scope, tuple(SCOPES))
        _one_of("part", self.part, PARTS)
        if not re.fullmatch(r"[\w.-]{1,64}", self.run, re.ASCII):
            raise ValueError(f"run must be a run's identity, not {self.run[:80]!r}")
        _at_least_one("round", self.round)

    def in_words(self) -> str:
        """Which run released what."""
        return f"run {self.run} released {self.artefact} without a guarantee"


@dataclass(frozen=True)
class Declared:
    """A cost that a hospital's operator declared for releases whose own events were lost.

    Whatever they were, it is said to bound all of them together, and it is added by basic composition.

    Attributes:
        epsilon: under either notion of neighbours; > 0.
        delta: in (0, 1). Totals at a delta that is not above it are infinite.

    Raises:
        ValueError: a value outside its range.
    """

    mechanism: ClassVar[str] = "declared"
    round: ClassVar[int] = 0  # of no round
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must be in (0, 1), not {self.delta}")


Event = PoissonGaussian | JointGaussian | Gaussian | RandomisedResponse | Unprotected | Declared
Training = PoissonGaussian | JointGaussian
Update = Training | Declared
MECHANISMS = {
    kind.mechanism: kind
    for kind in (PoissonGaussian, JointGaussian, Gaussian, RandomisedResponse, Unprotected, Declared)
}
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


def by_kind(
    events: Iterable[Event],
) -> tuple[
    tuple[PoissonGaussian, ...],
    tuple[JointGaussian, ...],
    tuple[Gaussian, ...],
    tuple[RandomisedResponse, ...],
    tuple[Unprotected, ...],
    tuple[Declared, ...],
]:
    """Events by kind, in their order.

    Training with own noise, training with joint noise, noised encodings, randomised labels, unprotected
    releases, declared costs.
    """
    training: list[PoissonGaussian] = []
    joint: list[JointGaussian] = []
    encodings: list[Gaussian] = []
    labels: list[RandomisedResponse] = []
    unprotected: list[Unprotected] = []
    declared: list[Declared] = []
    for event in events:
        match event:
            case PoissonGaussian():
                training.append(event)
            case JointGaussian():
                joint.append(event)
            case Gaussian():
                encodings.append(event)
            case RandomisedResponse():
                labels.append(event)
            case Unprotected():
                unprotected.append(event)
            case Declared():
                declared.append(event)
            case _:
                assert_never(event)
    return (
        tuple(training),
        tuple(joint),
        tuple(encodings),
        tuple(labels),
        tuple(unprotected),
        tuple(declared),
    )


def updates(events: Iterable[Event]) -> tuple[Update, ...]:
    """The events that paid for encoder updates with noise, nominal ones included, and declared costs.

    Lost releases may all have been updates.
    """
    every = tuple(events)
    _training, _joint, _encodings, _labels, _unprotected, declared = by_kind(every)
    return (*trained(every), *declared)


def trained(events: Iterable[Event]) -> tuple[Training, ...]:
    """The noised sums of gradients, whoever's noise they hold."""
    training, joint, _encodings, _labels, _unprotected, _declared = by_kind(events)
    together: tuple[Training, ...] = (*training, *joint)
    return together


def unprotected(events: Iterable[Event]) -> tuple[Unprotected, ...]:
    """The releases without a guarantee."""
    _training, _joint, _encodings, _labels, found, _declared = by_kind(events)
    return found


def priced(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events that have a finite cost, by kind."""
    training, joint, encodings, labels, _unprotected, declared = by_kind(events)
    return (*training, *joint, *encodings, *labels, *declared)


def merge(events: Iterable[Training]) -> tuple[tuple[float, float, int], ...]:
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


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(valid)}, not {value!r}")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
