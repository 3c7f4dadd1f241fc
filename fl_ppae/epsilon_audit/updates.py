"""Audits the epsilon of encoder updates: trains with canaries, plants controls, and bounds epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from fl_ppae.config import RunConfig
from fl_ppae.epsilon_audit.bounds import guess
from fl_ppae.epsilon_audit.canaries import Shapes, lay_out
from fl_ppae.epsilon_audit.checks import PASSED
from fl_ppae.epsilon_audit.joint_sum import ALL_BUT_ONE
from fl_ppae.epsilon_audit.trainings import REAL, Subject, Training, train_with_canaries
from fl_ppae.epsilon_audit.verdicts import Family, Finding, find
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.accounting import epsilon, losses_of_updates
from fl_ppae.privacy.calibration import calibrate_noise_multiplier
from fl_ppae.privacy.events import Training as Noised
from fl_ppae.privacy.honest import shares_of_noise
from fl_ppae.privacy.noise import SAMPLER_EPSILON
from fl_ppae.privacy.plan import HospitalPlan
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.privacy.trade_offs import INTERVAL, Curve, curve_of

NO_NOISE, HALF, ONE_ROUND = "no noise", "half the noise", "noise for one round only"
_SUMS, _WEIGHTS = 0.9, 0.1  # shares of the error


@dataclass(frozen=True)
class UpdateFinding:
    """What an audit of encoder updates found.

    Attributes:
        sums: by an adversary who sees every noised sum. weights: by one who sees only what each round sends
            and returns, a lower bound; None if the run shares no updates, or only their sum. Both hold
            together.
        checks: the outcome of each other test.
    """

    sums: Finding
    weights: float | None
    checks: dict[str, str]


def noised_shapes(config: RunConfig) -> Shapes:
    """The shapes of the parameters that the scope adds noise to."""
    noised = local_model_of(config).part(SCOPES[config.dp_scope].noised, config.trains)
    return [tuple(parameter.shape) for parameter in noised.parameters()]


def audit_updates(
    subject: Subject,
    config: RunConfig,
    *,
    canaries: int,
    trainings: int,
    confidence: float,
    claim: float | None = None,
    after_round: Callable[[], None] = lambda: None,
) -> UpdateFinding:
    """Train `trainings` times with `canaries` canaries and bound epsilon at the plan's delta.

    Nothing is sent; ledgers and models are thrown away.

    Args:
        canaries: from 20 to `canaries.room(noised_shapes(config))`.
        claim: epsilon to compare with; None for that of the hospital's ledger.

    Raises:
        UserError: the hospital declined or failed.
    """
    layout = lay_out(noised_shapes(config), canaries)
    planted = _controls(subject, config)
    seen = [
        train_with_canaries(subject, config, layout, planted, number, after_round)
        for number in range(trainings)
    ]
    events: Sequence[Noised] = seen[0].events if subject.joint is None else subject.joint.events
    delta = subject.plan.delta
    family = family_of(events, delta)
    claimed = epsilon(events, delta).spent if claim is None else claim
    checks = _checked(seen, _of_claim(subject).noise_multiplier or 0.0, config.max_grad_norm)
    guesses = {name: [guess(each.scores[name], each.included) for each in seen] for name in (REAL, *planted)}
    error = 1 - confidence
    sums = find(
        family,
        claimed,
        guesses[REAL],
        {name: guesses[name] for name in planted},
        [f"{name}: {outcome}" for name, outcome in checks.items() if outcome != PASSED],
        1 - _SUMS * error,
    )
    weights = None
    released = [guess(each.weights, each.included) for each in seen if each.weights is not None]
    if released:
        weights = family.lower_bound(released, 1 - _WEIGHTS * error)
    return UpdateFinding(sums, weights, checks)


def family_of(events: Sequence[Noised], delta: float) -> Family:
    """The ledger's claim and those with other noise, by the accountants."""
    samplers = shares_of_noise(events) * SAMPLER_EPSILON

    def scaled(scale: float) -> list[Noised]:
        return [replace(event, noise_multiplier=event.noise_multiplier * scale) for event in events]

    @cache  # bounds are searched on common scales
    def curve(scale: float) -> Curve:
        return curve_of(losses_of_updates(scaled(scale), INTERVAL), samplers)

    return Family(curve, lambda scale: 0.0 if math.isinf(scale) else epsilon(scaled(scale), delta).spent)


def _controls(subject: Subject, config: RunConfig) -> dict[str, float]:
    """The noise of each control as a share of the plan's."""
    plan = _of_claim(subject)
    controls = {NO_NOISE: 0.0, HALF: 0.5}
    if subject.joint is not None:  # then half of the sum's variance is missing
        controls[ALL_BUT_ONE] = math.sqrt(0.5)
    if plan.rounds > 1 and plan.noise_multiplier is not None and plan.epsilon_total is not None:
        alone = calibrate_noise_multiplier(
            plan.sample_rate, plan.steps_per_round, plan.epsilon_total, plan.delta
        )
        controls[ONE_ROUND] = alone / plan.noise_multiplier
    return controls


def _of_claim(subject: Subject) -> HospitalPlan:
    """The plan whose epsilon is audited."""
    return subject.plan if subject.joint is None else subject.joint.plan


def _checked(seen: list[Training], noise_multiplier: float, max_grad_norm: float) -> dict[str, str]:
    """Each test's outcome over all trainings: the first failure, or `PASSED`."""
    outcomes: dict[str, str] = {}
    for each in seen:
        event = each.events[0]
        for name, outcome in (
            ("steps paid", each.checks.steps(sum(event.steps for event in each.events))),
            ("Poisson sampling", each.checks.sampling(event.sample_rate)),
            ("fresh noise", each.checks.noise(noise_multiplier * max_grad_norm)),
        ):
            if outcomes.get(name, PASSED) == PASSED:
                outcomes[name] = outcome
    return outcomes
