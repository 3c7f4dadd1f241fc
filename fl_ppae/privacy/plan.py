"""What each hospital will spend, before anything trains: sample rate, noise, steps, epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fl_ppae.config import RunConfig
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError
from fl_ppae.privacy.accounting import (
    calibrate_encoding_noise,
    calibrate_noise_multiplier,
    epsilon,
    replace_one_epsilon,
)
from fl_ppae.privacy.events import TRAIN_PART, Event, PoissonGaussian
from fl_ppae.privacy.ledger import Terms, UploadTerms

HIGH_SAMPLE_RATE = 0.5
_RATES = 64  # a mantissa lies in [1/2, 1): half as many values an octave


@dataclass(frozen=True)
class HospitalPlan:
    """One hospital's training, fixed before round 1.

    Attributes:
        sample_rate: Poisson, as `sample_rate` says.
        noise_multiplier: None for dp-scope none.
        steps_per_round: noised sums a round.
        rounds: rounds that fit the budget; fewer than num-server-rounds only with a fixed noise.
        epsilon_round, epsilon_total: of the updates, add or remove one record, after the first and after
            the last of these; None without DP.
        upload: what sharing encodings costs; None if the run shares none.
        warnings: what a careful reader should know.
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

    def event(self, server_round: int) -> PoissonGaussian | None:
        """What one round of this plan costs; None without DP."""
        if self.noise_multiplier is None:
            return None
        return PoissonGaussian(self.noise_multiplier, self.sample_rate, self.steps_per_round, server_round)

    def upload_events(self, part: str, server_round: int) -> tuple[Event, ...]:
        """What the release of the encodings of `part` costs; nothing where they leave plain."""
        return self.upload.events(part, server_round) if self.upload is not None else ()

    def everything(self) -> tuple[Event, ...]:
        """All that a train record pays for, from the first round to the upload."""
        training: tuple[Event, ...] = ()
        if self.noise_multiplier is not None and self.rounds:
            steps = self.steps_per_round * self.rounds
            training = (PoissonGaussian(self.noise_multiplier, self.sample_rate, steps, 1),)
        return (*training, *self.upload_events(TRAIN_PART, 1))

    @property
    def epsilon_replace_one(self) -> float | None:
        """Epsilon of `everything` under replace-one neighbours; None without DP in training."""
        return None if self.noise_multiplier is None else replace_one_epsilon(self.everything(), self.delta)


@dataclass(frozen=True)
class Plan:
    """Every hospital's plan, in their order."""

    hospitals: tuple[HospitalPlan, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All hospitals' warnings."""
        return tuple(f"{plan.name}: {warning}" for plan in self.hospitals for warning in plan.warnings)


def sample_rate(records: int, batch_size: int) -> float:
    """Probability with which each record joins a batch: batch-size / records, rounded up, at most 1.

    Up to the next of 32 values an octave, by 3.2 % at most, so that hospitals of nearly one size share one
    calibration and one account. Batches are drawn at the rate that is returned here, and the ledger holds
    it: nothing is rounded away. A batch is that much larger than batch-size in expectation.
    """
    mantissa, exponent = math.frexp(batch_size / records)
    return min(1.0, math.ldexp(math.ceil(mantissa * _RATES) / _RATES, exponent))


def steps_per_round(records: int, config: RunConfig) -> int:
    """Noised sums a round: local-epochs passes of ceil(records / batch-size) steps."""
    return config.local_epochs * math.ceil(records / config.batch_size)


def plan_hospital(name: str, records: int, config: RunConfig) -> HospitalPlan:
    """The plan of a hospital with `records` train records.

    Raises:
        UserError: delta >= 1 / records, or a budget that no noise can meet.
    """
    rate = sample_rate(records, config.batch_size)
    steps = steps_per_round(records, config)
    rounds = config.num_server_rounds
    if config.dp_scope != "none" or config.encoding_noise_epsilon:
        check_delta(name, records, config.target_delta)
    upload = upload_terms(config)
    if config.dp_scope == "none":
        return HospitalPlan(name, records, rate, None, steps, rounds, None, None, config.target_delta, upload)
    sigma = config.noise_multiplier or calibrate_noise_multiplier(
        rate, rounds * steps, config.target_epsilon, config.target_delta
    )
    if config.noise_multiplier:
        rounds = _affordable_rounds(sigma, rate, steps, config)
    warnings = []
    if rate > HIGH_SAMPLE_RATE:
        warnings.append(
            f"sample rate {rate:.2f} is above {HIGH_SAMPLE_RATE}: little amplification by sampling"
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
        _spent(sigma, rate, steps, min(rounds, 1), config.target_delta),
        _spent(sigma, rate, steps, rounds, config.target_delta),
        config.target_delta,
        upload,
        tuple(warnings),
    )


def planned_terms(plan: HospitalPlan, config: RunConfig, run: str) -> Terms:
    """A plan as the terms that a ledger holds."""
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
    )


def upload_terms(config: RunConfig) -> UploadTerms | None:
    """What sharing encodings costs a hospital: the same in all; None if the run shares none."""
    if not config.shares_encodings:
        return None
    budget = config.encoding_noise_epsilon
    sigma = calibrate_encoding_noise(budget, config.target_delta) if budget else None
    return UploadTerms(budget, sigma, config.label_epsilon, DATASETS[config.dataset].num_classes)


def make_plan(config: RunConfig, records: Mapping[str, int]) -> Plan:
    """Plans for all hospitals, `records` by name. Raises as `plan_hospital` does."""
    return Plan(tuple(plan_hospital(name, count, config) for name, count in records.items()))


def shared_noise_plan(config: RunConfig, records: Mapping[str, int]) -> Plan:
    """The same run under one noise multiplier for all: that of an average hospital.

    What most federated code does, for comparison: small hospitals then spend more than the target.
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
    """Refuse a delta at which publishing one record in the clear would count as private."""
    if delta >= 1 / records:
        raise UserError(
            f"target-delta = {delta:g} is not below 1/records of {name} ({records} records): "
            f"a value below {1 / records:.2g} is needed"
        )


def _spent(sigma: float, rate: float, steps: int, rounds: int, delta: float) -> float:
    events = [PoissonGaussian(sigma, rate, steps * rounds, 1)] if rounds else []
    return epsilon(events, delta).spent


def _affordable_rounds(sigma: float, rate: float, steps: int, config: RunConfig) -> int:
    low, high = 0, config.num_server_rounds
    while low < high:
        middle = (low + high + 1) // 2
        if _spent(sigma, rate, steps, middle, config.target_delta) <= config.target_epsilon:
            low = middle
        else:
            high = middle - 1
    return low
