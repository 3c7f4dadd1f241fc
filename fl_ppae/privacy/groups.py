"""What a record pays that stands in the data several times: the guarantee of a group, not of one record.

Guarantee computed here: (epsilon, delta)-differential privacy of all copies of one record together, over all
events given, under the assumptions of `privacy.accounting`. The copies may be in one hospital or in several,
and one hospital's noise does not protect what another releases: their events compose.

Training. Each of k copies joins a batch independently with the sample rate, so a sum moves by at most j clip
norms, j of Binomial(k, rate). `group_epsilon` is for removing or adding all copies. By Ganesh 2024
(arXiv:2401.10294), with corollary 4.7 of arXiv:2310.15526, the step is dominated by the scalar mixture of
Gaussians with these j as means; with k = 1 it is the step of one record. `group_replace_epsilon` is for
replacing all copies by other records. It takes the two mixtures with means j and -j as dominating, which is
assumed and not proven, as it is for one record (Lebeda et al. 2024, arXiv:2405.20769).

Joint noise. Copies in several hospitals are in one sum with one noise, so they count as copies in one
hospital, under the smallest number of honest hospitals among the joint releases.

Encodings and labels. Each copy is released with noise of its own, so k copies cost k releases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import numpy as np
from dp_accounting.pld.pld_pmf import PLDPmf, create_pmf_pessimistic_connect_dots_fixed_gap
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_gaussian_mechanism,
    from_randomized_response,
)
from dp_accounting.privacy_accountant import NeighboringRelation
from scipy.special import logsumexp
from scipy.stats import binom, norm

from fl_ppae.privacy.events import (
    TRAIN_PART,
    UPDATES,
    Event,
    JointGaussian,
    by_kind,
    merge,
    trained,
    unprotected,
    updates,
)
from fl_ppae.privacy.honest import assuming, fewest_honest, shares_of_noise
from fl_ppae.privacy.labels import replacement_rate
from fl_ppae.privacy.noise import SAMPLER_EPSILON

MAX_COPIES = 16
_INTERVAL = 5e-4  # of the distributions' grid at the finest, as in `privacy.accounting`
_POINTS = 2**17  # of one step's distribution at most: wider ones get a coarser grid
_TAIL = 10.0  # standard deviations: what lies beyond, 8e-24, counts as infinite loss
_COARSE = 2**14 + 1
_NEWTON_STEPS = 3  # from linear interpolation they reach a float's precision

# Signs of the means j in the two distributions of a pair.
_REMOVED, _ADDED, _REPLACED = (1, 0), (0, -1), (1, -1)


@dataclass(frozen=True)
class Holding:
    """One hospital's copies of a record, and everything that its records paid for.

    Attributes:
        events: of the hospital, in any order.
        train, test: how many copies are in its train and its test part, >= 0.
    """

    events: tuple[Event, ...]
    train: int
    test: int = 0


def group_epsilon(holdings: Iterable[Holding], delta: float) -> float:
    """Epsilon at `delta` of the encoder updates, add or remove all copies; 0 for no copies or no events.

    Infinite for more than `MAX_COPIES` in a hospital, whose number would mean nothing; if an update left
    without a guarantee; and if the hospital's operator declared a cost for lost events.
    """
    return _epsilon([_updates_alone(held) for held in holdings], delta, replaced=False)


def group_replace_epsilon(holdings: Iterable[Holding], delta: float) -> float:
    """Epsilon at `delta` of all events, replace all copies; 0 for no copies or no events.

    Infinite as for `group_epsilon`, and if anything of a copy was released without a guarantee.
    """
    return _epsilon(list(holdings), delta, replaced=True)


def _epsilon(holdings: Sequence[Holding], delta: float, *, replaced: bool) -> float:
    holdings = _joined(holdings)
    if any(max(held.train, held.test) > MAX_COPIES or _unbounded(held) for held in holdings):
        return math.inf
    interval = max(
        [_INTERVAL, *(_interval(sigma, held.train) for held in holdings for sigma in _noise(held))]
    )
    parts = [part for held in holdings for part in _parts(held, interval, replaced)]
    if not parts:
        return 0.0
    together = reduce(lambda left, right: left.compose(right), parts)
    samplers = sum(shares_of_noise(held.events) for held in holdings)
    return float(together.get_epsilon_for_delta(delta)) + samplers * SAMPLER_EPSILON


def _joined(holdings: Sequence[Holding]) -> list[Holding]:
    """The same, with each joint release once: beside a holding of all the copies that its sum may hold."""
    fewest = fewest_honest(event for held in holdings for event in held.events)
    if fewest is None:
        return list(holdings)
    copies: dict[tuple[JointGaussian, int], int] = {}
    rest = []
    for held in holdings:
        counted = assuming(held.events, fewest)
        _training, joint, *_others = by_kind(counted)
        rest.append(replace(held, events=tuple(event for event in counted if event not in joint)))
        for event, count in Counter(joint).items():
            for number in range(count):
                key = (event, number)
                copies[key] = copies.get(key, 0) + held.train
    in_sums: dict[int, list[Event]] = {}
    for (event, _number), together in copies.items():
        in_sums.setdefault(together, []).append(event)
    return [*rest, *(Holding(tuple(events), together) for together, events in in_sums.items())]


def _updates_alone(held: Holding) -> Holding:
    unnoised = (event for event in unprotected(held.events) if event.artefact == UPDATES)
    return Holding((*updates(held.events), *unnoised), held.train)


def _unbounded(held: Holding) -> bool:
    """Whether a copy was released without a guarantee, or at a cost that is declared for one record only."""
    *_priced, without, declared = by_kind(held.events)
    lost = bool(declared) and held.train + held.test > 0
    return lost or any(_copies(held, event.part) for event in without)


def _noise(held: Holding) -> list[float]:
    return [event.noise_multiplier for event in trained(held.events)] if held.train else []


def _copies(held: Holding, part: str) -> int:
    return held.train if part == TRAIN_PART else held.test


def _interval(sigma: float, copies: int) -> float:
    """The grid on which one step's losses take at most `_POINTS`."""
    return 4 * copies * _edge(sigma, copies) / sigma**2 / _POINTS


def _edge(sigma: float, copies: int) -> float:
    """Outcomes beyond this or below its negative are so rare that they count as infinite loss."""
    return copies + _TAIL * sigma


def _parts(held: Holding, interval: float, replaced: bool) -> Iterator[PrivacyLossDistribution]:
    """The distribution of all training steps, and of each release of encodings or labels."""
    _training, _joint, encodings, labels, _unprotected, _declared = by_kind(held.events)
    if held.train:
        step = _replacement if replaced else _removal
        for sigma, rate, count in merge(trained(held.events)):
            yield step(sigma, rate, held.train, interval).self_compose(count)
    releases = [
        (_copies(held, event.part), _encoding(event.noise_multiplier, interval)) for event in encodings
    ]
    releases += [(held.train, _label(event.epsilon, event.classes, interval)) for event in labels]
    yield from (one.self_compose(copies) for copies, one in releases if copies)


def _encoding(sigma: float, interval: float) -> PrivacyLossDistribution:
    return from_gaussian_mechanism(
        sigma,
        value_discretization_interval=interval,
        use_connect_dots=True,
        neighboring_relation=NeighboringRelation.REPLACE_ONE,
    )


def _label(epsilon: float, classes: int, interval: float) -> PrivacyLossDistribution:
    chance = replacement_rate(epsilon, classes)
    return from_randomized_response(chance, classes, value_discretization_interval=interval)


@lru_cache(maxsize=128)
def _removal(sigma: float, rate: float, copies: int, interval: float) -> PrivacyLossDistribution:
    """One training step's distribution for removing, and for adding, `copies` of a record."""
    removed, added = (_pair(sigma, rate, copies, interval, *signs) for signs in (_REMOVED, _ADDED))
    return PrivacyLossDistribution(removed, added)


@lru_cache(maxsize=128)
def _replacement(sigma: float, rate: float, copies: int, interval: float) -> PrivacyLossDistribution:
    """One training step's distribution for replacing `copies` of a record."""
    return PrivacyLossDistribution(_pair(sigma, rate, copies, interval, *_REPLACED))


def _pair(sigma: float, rate: float, copies: int, interval: float, upper: int, lower: int) -> PLDPmf:
    """The privacy loss between mixtures of normal distributions with means `upper` * j and `lower` * j.

    The loss increases with the outcome, so delta at each epsilon is that of a half-line; pessimistic
    connect-the-dots (arXiv:2207.04380) joins these deltas.
    """
    joined = np.arange(copies + 1.0)
    log_weights = binom.logpmf(joined, copies, rate)
    edge = _edge(sigma, copies)

    def log_density(outcomes: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a mixture over the normal distribution around 0, and its slope."""
        means = sign * joined
        terms = log_weights + means * (2 * outcomes[:, None] - means) / (2 * sigma**2)
        value = logsumexp(terms, axis=1)
        return value, np.exp(terms - value[:, None]) @ means / sigma**2

    def loss(outcomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (above, rising), (below, falling) = (log_density(outcomes, sign) for sign in (upper, lower))
        return above - below, rising - falling

    coarse = np.linspace(-edge, edge, _COARSE)
    losses, _ = loss(coarse)
    least, most = math.ceil(losses[0] / interval), math.ceil(losses[-1] / interval)
    epsilons = np.arange(least, most + 1) * interval
    outcomes = np.interp(epsilons, losses, coarse)
    for _ in range(_NEWTON_STEPS):
        value, slope = loss(outcomes)
        outcomes = np.clip(outcomes - (value - epsilons) / np.maximum(slope, 1e-12), -edge, edge)

    def tail(sign: int) -> np.ndarray:
        """Log of a mixture's probability above each outcome."""
        return logsumexp(log_weights + norm.logsf((outcomes[:, None] - sign * joined) / sigma), axis=1)

    above = np.exp(tail(upper))
    deltas = np.clip(above - np.exp(epsilons + tail(lower)), 0, 1)
    deltas[-1] = above[-1]  # its half-line lies beyond the edge
    deltas = np.maximum.accumulate(deltas[::-1])[::-1]  # rounding may not make delta grow with epsilon
    return create_pmf_pessimistic_connect_dots_fixed_gap(interval, least, most, deltas)
