"""What events cost: epsilon at a given delta by two independent accountants.

Guarantee computed here: (epsilon, delta)-differential privacy of one record, composed over *all*
events given, assuming that each batch was drawn by Poisson sampling at the event's sample rate, and
that each gradient or encoding was clipped to the norm that its noise is scaled by. `epsilon` is for
encoder updates under add-or-remove-one neighbours, by both accountants. `replace_one_epsilon` is for
everything, under replace-one neighbours: encodings and labels are released record by record, so their
number alone would reveal that a record was added. It is larger, even for the same updates. It is infinite
if anything was released without a guarantee.

Joint releases count under the smallest number of honest hospitals among them (`privacy.honest`).

Whatever holds Gaussian noise costs `SAMPLER_EPSILON` more for each hospital whose noise it holds, for noise
that a computer drew (`privacy.noise`).

PRV: Gopi, Lee, Wutschitz 2021 (arXiv:2106.02848), in Opacus. PLD: Koskela et al. 2020
(arXiv:1906.03049) with pessimistic rounding, in dp-accounting. Neither uses the other's code.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import assert_never

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_gaussian_mechanism,
    from_randomized_response,
)
from dp_accounting.privacy_accountant import NeighboringRelation
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.prv import Domain, PoissonSubsampledGaussianPRV
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from fl_ppae.privacy.events import (
    PARTS,
    TRAIN_PART,
    Declared,
    Event,
    Gaussian,
    JointGaussian,
    PoissonGaussian,
    RandomisedResponse,
    Training,
    Unprotected,
    Update,
    by_kind,
    merge,
    trained,
)
from fl_ppae.privacy.honest import ALONE, assuming, fewest_honest, shares_of_noise
from fl_ppae.privacy.labels import replacement_rate
from fl_ppae.privacy.noise import SAMPLER_EPSILON

_PRV_ERROR, _PRV_RELATIVE_ERROR = 1e-3, 2e-3  # allowed for in its grid
_INTERVAL = 5e-4  # of PLD's grid, rounded pessimistically; at epsilon 8 a fifth of it gains 0.0005
_FEWEST_CELLS, _MOST_CELLS = 4_000, 16_000  # of PLD's grid, below epsilon or the largest loss of a step
_MOST_CELLS_OF_ENCODINGS = 64_000
_FAR = 2_000.0  # an epsilon above every budget, whose exact value would take minutes
_ORDERS = [*range(2, 65), 96, 128, 256]  # integer orders have a short formula, others a slow series
_ADD_OR_REMOVE, _REPLACE = NeighboringRelation.ADD_OR_REMOVE_ONE, NeighboringRelation.REPLACE_ONE

Merged = tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Epsilon:
    """The epsilon of one composition by both accountants. The larger, `spent`, is the one that counts."""

    prv: float
    pld: float

    @property
    def spent(self) -> float:
        """The larger of the two: in doubt, the ledger overstates."""
        return max(self.prv, self.pld)


def epsilon(events: Iterable[Update], delta: float) -> Epsilon:
    """Epsilon at `delta` of these encoder updates together, add or remove one record; 0 for no events.

    Declared costs are added by basic composition (Dwork and Roth 2014, theorem B.1): their deltas are taken
    off `delta`, and their epsilons added. Infinite if nothing is left of `delta`.

    Raises:
        ValueError: delta outside (0, 1).
    """
    every = _under_one_assumption(events)
    return Epsilon(*(_composed_updates(every, delta, accountant) for accountant in (prv, pld)))


def epsilon_alone(events: Iterable[Update], delta: float) -> float:
    """Epsilon if all other hospitals collude with the server: of joint noise, only the own share counts.

    By PLD; never below `epsilon`, which it is without joint noise.
    """
    every = tuple(events)
    return max(epsilon(every, delta).spent, _composed_updates(assuming(every, ALONE), delta, pld))


def replace_one_epsilon(events: Iterable[Event], delta: float) -> float:
    """Epsilon at `delta` of all `events` together, replace one record, by PLD; 0 for no events.

    Infinite if one of them is unprotected. A record is in the train or in the test part, so the one with the
    larger epsilon counts; `privacy.groups` is for a record that stands in both, or several times. Declared
    costs are added as in `epsilon`, to either part.

    Raises:
        ValueError: delta outside (0, 1).
    """
    _check_delta(delta)
    every = _under_one_assumption(events)
    *_others, declared = by_kind(every)
    left = _left(declared, delta)
    if left <= 0:
        return math.inf
    known = max(_replace_one(tuple(e for e in every if _part(e) == part), left) for part in PARTS)
    return known + sum(event.epsilon for event in declared)


def _composed_updates(
    events: Iterable[Event], delta: float, accountant: Callable[[Merged, float], float]
) -> float:
    _check_delta(delta)
    every = tuple(events)
    *_others, declared = by_kind(every)
    left = _left(declared, delta)
    if left <= 0:
        return math.inf
    known = accountant(merge(trained(every)), left)
    return known + sum(event.epsilon for event in declared) + _further_samplers(every)


def _under_one_assumption(events: Iterable[Event]) -> tuple[Event, ...]:
    every = tuple(events)
    honest = fewest_honest(every)
    return every if honest is None else assuming(every, honest)


def _further_samplers(events: Iterable[Event]) -> float:
    """What the samplers of hospitals after the first add."""
    return (shares_of_noise(events) - 1) * SAMPLER_EPSILON


def _left(declared: Iterable[Declared], delta: float) -> float:
    """What declared costs leave of `delta`, rounded down."""
    lost = math.fsum(event.delta for event in declared)
    return delta if not lost else math.nextafter(delta - lost, -math.inf)


def losses_of_updates(events: Iterable[Training], interval: float) -> PrivacyLossDistribution:
    """The privacy losses of at least one encoder update, add or remove one record, without `SAMPLER_EPSILON`.

    `interval`: of the grid on which losses are rounded, pessimistically.
    """
    merged = merge(trained(_under_one_assumption(events)))
    return _together([_steps(*part, _ADD_OR_REMOVE, interval) for part in merged])


def losses_of_encodings(event: Gaussian, interval: float) -> PrivacyLossDistribution:
    """The same of one release of encodings, replace one record."""
    return _steps(event.noise_multiplier, 1.0, 1, _REPLACE, interval)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), not {delta}")


def _part(event: Event) -> str:
    """The part whose records pay: only encodings are ever made from test records. Empty if it isn't known."""
    match event:
        case Gaussian() | Unprotected():
            return event.part
        case PoissonGaussian() | JointGaussian() | RandomisedResponse():
            return TRAIN_PART
        case Declared():
            return ""
        case _:
            assert_never(event)


@lru_cache(maxsize=4096)
def prv(merged: Merged, delta: float) -> float:
    """PRV's estimate for these updates, add or remove one record; 0 for none.

    Where PRV's arithmetic fails, for a tiny delta, and above `_FAR`, it is the Renyi bound, which is larger.
    """
    if not merged:
        return 0.0
    bound = renyi_bound(merged, delta)
    if bound > _FAR:
        return bound + SAMPLER_EPSILON
    accountant = _CachedDomainPRV()
    accountant.history = list(merged)
    error = max(_PRV_ERROR, _PRV_RELATIVE_ERROR * bound)
    with np.errstate(divide="ignore"):  # Opacus takes the logarithm of 0 where a batch holds every record
        try:
            found = float(accountant.get_epsilon(delta, eps_error=error)) - error
        except (ValueError, RuntimeError):  # delta is below what its sums of float64 can tell from 0
            found = bound
    return found + SAMPLER_EPSILON


class _CachedDomainPRV(PRVAccountant):
    """Opacus's accountant with a faster choice of its domain, the range over which it convolves.

    Opacus spends nine tenths of its time on the Renyi divergences that size the domain. Any that bound the
    loss will do: integer orders are quick, and those of one step are cached for any number of steps.
    """

    def _get_domain(
        self,
        prvs: list[PoissonSubsampledGaussianPRV],
        num_self_compositions: list[int],
        eps_error: float,
        delta_error: float,
    ) -> Domain:
        total = sum(num_self_compositions)
        each = [_renyi_of_one_step(prv.noise_multiplier, prv.sample_rate) for prv in prvs]
        parts = [steps * renyi for steps, renyi in zip(num_self_compositions, each, strict=True)]
        together = reduce(np.add, parts)
        bounds = [_renyi_epsilon(together, delta_error / 4)]
        bounds += [_renyi_epsilon(renyi, delta_error / (8 * total)) for renyi in each]
        half = max(*bounds, eps_error) + 3
        mesh = eps_error / np.sqrt(total * np.log(12 / delta_error) / 2)
        return Domain.create_aligned(-half, half, mesh)


@lru_cache(maxsize=1024)
def _renyi_of_one_step(sigma: float, rate: float) -> np.ndarray:
    return np.asarray(compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=_ORDERS))


def _renyi_epsilon(divergences: np.ndarray, delta: float) -> float:
    with warnings.catch_warnings():
        # A bound that is not tight is enough here.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(get_privacy_spent(orders=_ORDERS, rdp=divergences, delta=delta)[0])


def renyi_bound(merged: Merged, delta: float) -> float:
    """An upper bound on epsilon (arXiv:1702.07476), quick and not tight."""
    if not merged:
        return 0.0
    together = sum(steps * _renyi_of_one_step(sigma, rate) for sigma, rate, steps in merged)
    return _renyi_epsilon(np.asarray(together), delta)


def _interval(merged: Merged, delta: float) -> float:
    """PLD's grid: finer for a small epsilon and coarser for a large one, in powers of two.

    Few different grids are few one-step distributions, which take most of the time.
    """
    bound = renyi_bound(merged, delta)
    if bound <= 0:  # no updates, or a delta so large that the conversion falls below 0
        return _INTERVAL
    widest = max(_largest_loss(sigma, rate) for sigma, rate, _ in merged)
    finest = max(bound / _FEWEST_CELLS, widest / _MOST_CELLS)
    return _power_of_two(max(min(_INTERVAL, finest), bound / _MOST_CELLS))


def _power_of_two(wanted: float) -> float:
    """The largest interval up to `wanted` that is a power of two times `_INTERVAL`."""
    return _INTERVAL * 2.0 ** math.floor(math.log2(wanted / _INTERVAL))


def _largest_loss(sigma: float, rate: float) -> float:
    """Of one step, at ten standard deviations: rare losses can be far above epsilon."""
    return math.log1p(rate * math.expm1(min((20 * sigma + 1) / (2 * sigma**2), 700.0)))


@lru_cache(maxsize=4096)
def pld(merged: Merged, delta: float) -> float:
    """PLD's upper bound for these updates, add or remove one record; 0 for none.

    Above `_FAR` it is the Renyi bound, which is larger.
    """
    if not merged:
        return 0.0
    bound = renyi_bound(merged, delta)
    if bound > _FAR:
        return bound + SAMPLER_EPSILON
    interval = _interval(merged, delta)
    parts = [_steps(*part, _ADD_OR_REMOVE, interval) for part in merged]
    return _composed(parts, delta) + SAMPLER_EPSILON


@lru_cache(maxsize=1024)
def _replace_one(events: tuple[Event, ...], delta: float) -> float:
    _training, _joint, encodings, labels, unprotected, _declared = by_kind(events)
    if unprotected:
        return math.inf
    merged = merge(trained(events))
    interval = _interval(merged, delta)
    if encodings or labels:
        interval = max(interval, _INTERVAL)  # their losses don't shrink with those of the training
    if encodings:  # at most two clipping norms apart
        widest = max(_largest_loss(event.noise_multiplier / 2, 1.0) for event in encodings)
        interval = max(interval, _power_of_two(widest / _MOST_CELLS_OF_ENCODINGS))
    parts = [_steps(*part, _REPLACE, interval) for part in merged]
    parts += [_steps(event.noise_multiplier, 1.0, 1, _REPLACE, interval) for event in encodings]
    parts += [
        from_randomized_response(
            replacement_rate(event.epsilon, event.classes),
            event.classes,
            value_discretization_interval=interval,
        )
        for event in labels
    ]
    return _composed(parts, delta) + bool(merged or encodings) * SAMPLER_EPSILON + _further_samplers(events)


def _composed(parts: list[PrivacyLossDistribution], delta: float) -> float:
    if not parts:
        return 0.0
    return float(_together(parts).get_epsilon_for_delta(delta))


def _together(parts: Iterable[PrivacyLossDistribution]) -> PrivacyLossDistribution:
    return reduce(lambda left, right: left.compose(right), parts)


def _steps(
    sigma: float, rate: float, steps: int, relation: NeighboringRelation, interval: float = _INTERVAL
) -> PrivacyLossDistribution:
    return _one_step(sigma, rate, relation, interval).self_compose(steps)


@lru_cache(maxsize=128)
def _one_step(
    sigma: float, rate: float, relation: NeighboringRelation, interval: float
) -> PrivacyLossDistribution:
    """One step's distribution, cached because it takes most of the time and is the same every round.

    dp-accounting takes `sigma` in units of the clipping norm under both relations: replacing a record
    moves the sum by up to two clipping norms.
    """
    return from_gaussian_mechanism(
        sigma,
        value_discretization_interval=interval,
        sampling_prob=rate,
        use_connect_dots=True,
        neighboring_relation=relation,
    )
