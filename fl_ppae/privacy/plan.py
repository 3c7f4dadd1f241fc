"""What each hospital will spend, computed before training: sample rate, noise, steps, epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fl_ppae.config import MIN_NOISE_MULTIPLIER, RunConfig
from fl_ppae.data.registry import spec_of
from fl_ppae.errors import UserError
from fl_ppae.privacy.accounting import epsilon, epsilon_alone, replace_one_epsilon
from fl_ppae.privacy.calibration import calibrate_encoding_noise, calibrate_noise_multiplier
from fl_ppae.privacy.events import TRAIN_PART, Event, JointGaussian, PoissonGaussian
from fl_ppae.privacy.joint import check_range
from fl_ppae.privacy.terms import Terms, UploadTerms
from fl_ppae.protection import JOINT, honest_of
from fl_ppae.steps import step

HIGH_SAMPLE_RATE = 0.5
_NAMED = 3  # hospitals named in a warning
_RATES = 64  # a mantissa is in [1/2, 1): half as many values per octave


@dataclass(frozen=True)
class HospitalPlan:
    """One hospital's training, fixed before round 1.

    Attributes:
        sample_rate: of Poisson sampling, from `sample_rate` or the key of that name.
        noise_multiplier: None for dp-scope none.
        steps_per_round: noised sums per round.
        rounds: how many fit the budget; fewer than num-server-rounds only with a fixed noise multiplier.
        epsilon_round, epsilon_total: of the updates, add or remove one record, after the first and the
            last of these rounds; None without DP.
        upload: the cost of sharing encodings; None if the run shares none.
        warnings: for the reader of the plan.
        honest: as in `terms.Terms`.
        epsilon_alone: `epsilon_total` if all other hospitals collude; None unless noise is joint.
    """

    name: str
    records: int
    sample_rate: float
    noise_multiplier: float | None
    steps_per_round: int
    rounds: int
    epsilon_round: float | None
    epsilon_total: float | None
    delta: float
    upload: UploadTerms | None = None
    warnings: tuple[str, ...] = ()
    honest: int = 0
    epsilon_alone: float | None = None

    def event(self, server_round: int) -> PoissonGaussian | JointGaussian | None:
        """The cost of one round of this plan; None without DP."""
        if self.noise_multiplier is None:
            return None
        return _training(
            self.noise_multiplier, self.honest, self.sample_rate, self.steps_per_round, server_round
        )

    def everything(self) -> tuple[Event, ...]:
        """All noise that a train record pays for, from the first round to the upload."""
        training: tuple[Event, ...] = ()
        if self.noise_multiplier is not None and self.rounds:
            steps = self.steps_per_round * self.rounds
            training = (_training(self.noise_multiplier, self.honest, self.sample_rate, steps, 1),)
        return (*training, *(self.upload.events(TRAIN_PART, 1) if self.upload is not None else ()))

    @property
    def epsilon_replace_one(self) -> float | None:
        """Epsilon of `everything` under replace-one neighbours; None without DP in training."""
        return None if self.noise_multiplier is None else replace_one_epsilon(self.everything(), self.delta)


@dataclass(frozen=True)
class Plan:
    """Every hospital's plan, in order."""

    hospitals: tuple[HospitalPlan, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All hospitals' warnings; one that several have is told once, with the names of some of them."""
        warned: dict[str, list[str]] = {}
        for plan in self.hospitals:
            for warning in plan.warnings:
                warned.setdefault(warning, []).append(plan.name)
        return tuple(f"{_named(names)}: {warning}" for warning, names in warned.items())


def _named(hospitals: Sequence[str]) -> str:
    more = f" and {len(hospitals) - _NAMED} more" if len(hospitals) > _NAMED else ""
    return ", ".join(hospitals[:_NAMED]) + more


def sample_rate(records: int, batch_size: int) -> float:
    """Probability that a record joins a batch: batch-size / records, rounded up, at most 1.

    Rounding goes to the next of 32 values per octave, by at most 3.2 %, so that hospitals of similar size
    share a calibration and an accounting. Batches are drawn at the returned rate and the ledger holds it,
    so no privacy cost is rounded away. The expected batch is that much larger than batch-size.
    """
    mantissa, exponent = math.frexp(batch_size / records)
    return min(1.0, math.ldexp(math.ceil(mantissa * _RATES) / _RATES, exponent))


def steps_per_round(records: int, config: RunConfig) -> int:
    """Noised sums per round: one, or local-epochs expected passes over the records."""
    if config.local_steps:
        return config.local_steps
    a_pass = 1 / config.sample_rate if config.sample_rate else records / config.batch_size
    return config.local_epochs * math.ceil(a_pass)


def plan_hospital(name: str, records: int, config: RunConfig) -> HospitalPlan:
    """The plan of a hospital with `records` train records.

    Raises:
        UserError: delta >= 1 / records, or no noise meets the budget.
    """
    rate = config.sample_rate or sample_rate(records, config.batch_size)
    steps = steps_per_round(records, config)
    rounds = config.num_server_rounds
    if config.dp_scope != "none" or config.encoding_noise_epsilon:
        check_delta(name, records, config.target_delta)
    upload = upload_terms(config)
    if config.dp_scope == "none":
        return HospitalPlan(name, records, rate, None, steps, rounds, None, None, config.target_delta, upload)
    honest = honest_of(config)
    sigma = config.noise_multiplier or calibrate_noise_multiplier(
        rate, rounds * steps, config.target_epsilon, config.target_delta, honest or 1
    )

    def training(rounds: int) -> list[PoissonGaussian | JointGaussian]:
        return [_training(sigma, honest, rate, steps * rounds, 1)] if rounds else []

    def spent(rounds: int) -> float:
        return epsilon(training(rounds), config.target_delta).spent

    if config.noise_multiplier:
        rounds = _affordable_rounds(spent, config)
    warnings = []
    if rate > HIGH_SAMPLE_RATE:
        warnings.append(
            f"sample rate {rate:.2f} is above {HIGH_SAMPLE_RATE}: little amplification by sampling"
        )
    if not config.noise_multiplier and sigma == MIN_NOISE_MULTIPLIER:
        warnings.append(
            f"noise multiplier {sigma:g} is the smallest allowed, so target-epsilon = "
            f"{config.target_epsilon:g} is not used up"
        )
    if rounds < config.num_server_rounds:
        warnings.append(
            f"budget of epsilon {config.target_epsilon:g} lasts {rounds} of {config.num_server_rounds} rounds"
        )
    return HospitalPlan(
        name,
        records,
        rate,
        sigma,
        steps,
        rounds,
        spent(min(rounds, 1)),
        spent(rounds),
        config.target_delta,
        upload,
        tuple(warnings),
        honest,
        epsilon_alone(training(rounds), config.target_delta) if honest else None,
    )


def planned_terms(plan: HospitalPlan, config: RunConfig, run: str) -> Terms:
    """A plan as terms for the ledger."""
    return Terms(
        run,
        config.dp_scope,
        plan.records,
        plan.noise_multiplier,
        plan.sample_rate,
        plan.steps_per_round,
        config.max_grad_norm,
        config.target_epsilon,
        config.target_delta,
        plan.upload,
        config.shares_updates,
        config.diagnostics,
        plan.honest,
    )


def upload_terms(config: RunConfig) -> UploadTerms | None:
    """The cost of sharing encodings, the same for every hospital; None if the run shares none."""
    if not config.shares_encodings:
        return None
    budget = config.encoding_noise_epsilon
    sigma = calibrate_encoding_noise(budget, config.target_delta) if budget else None
    return UploadTerms(budget, sigma, config.label_epsilon, spec_of(config).num_classes)


def make_plan(config: RunConfig, records: Mapping[str, int]) -> Plan:
    """Plans for all hospitals from their numbers of records, by name.

    Raises:
        UserError: as `plan_hospital`, or all records together are too many for a sum with joint noise.
    """
    plans = []
    for name, count in records.items():
        step(f"planning {name}")
        plans.append(plan_hospital(name, count, config))
    if config.noise == JOINT:  # of the same size in all of them
        share = planned_terms(plans[0], config, "").own_noise_multiplier or 0.0
        check_range(share * config.max_grad_norm, config.max_grad_norm, sum(records.values()), len(records))
    return Plan(tuple(plans))


def shared_noise_plan(config: RunConfig, records: Mapping[str, int]) -> Plan:
    """The same run with one noise multiplier for all, calibrated for an average hospital.

    For comparison: most federated code does this, and small hospitals then spend more than the target.
    """
    mean_records = max(1, round(sum(records.values()) / len(records)))
    average = plan_hospital("average", mean_records, config)
    if average.noise_multiplier is None:
        return make_plan(config, records)
    shared = config.model_copy(
        update={"noise_multiplier": average.noise_multiplier, "target_epsilon": math.inf}
    )
    return make_plan(shared, records)


def check_delta(name: str, records: int, delta: float) -> None:
    """Refuse a delta so large that publishing a record in the clear would count as private."""
    if delta >= 1 / records:
        raise UserError(
            f"target-delta = {delta:g} is not below 1/records of {name} ({records} records): "
            f"a value below {1 / records:.2g} is needed"
        )


def _training(
    sigma: float, honest: int, rate: float, steps: int, server_round: int
) -> PoissonGaussian | JointGaussian:
    if honest:
        return JointGaussian(sigma, honest, rate, steps, server_round)
    return PoissonGaussian(sigma, rate, steps, server_round)


def _affordable_rounds(spent: Callable[[int], float], config: RunConfig) -> int:
    low, high = 0, config.num_server_rounds
    while low < high:
        middle = (low + high + 1) // 2
        if spent(middle) <= config.target_epsilon:
            low = middle
        else:
            high = middle - 1
    return low
