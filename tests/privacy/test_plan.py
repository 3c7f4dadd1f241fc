"""The plan before round 1, a hospital's own ceilings, and a node with a data file of its own."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from support import Run, simulated_nodes, write_npz

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hospital import training
from fl_ppae.privacy.accounting import epsilon, epsilon_alone
from fl_ppae.privacy.events import JointGaussian, PoissonGaussian, as_dict
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.privacy.plan import make_plan, plan_hospital, sample_rate, shared_noise_plan, steps_per_round
from fl_ppae.simulation.in_process import InProcessGrid


def config_of(**changes: Any) -> RunConfig:
    values = {"num-server-rounds": 4, "batch-size": 50, "target-epsilon": 2.0, "target-delta": 1e-3}
    return RunConfig.from_flat({**values, **{key.replace("_", "-"): value for key, value in changes.items()}})


@pytest.mark.parametrize(
    ("records", "batch", "rate", "steps"), [(200, 50, 0.25, 4), (201, 50, 0.25, 5), (30, 50, 1.0, 1)]
)
def test_sample_rate_and_steps_follow_from_batch_and_records(
    records: int, batch: int, rate: float, steps: int
) -> None:
    assert sample_rate(records, batch) == rate
    assert steps_per_round(records, config_of(batch_size=batch, local_epochs=3)) == 3 * steps


def test_a_sample_rate_is_rounded_up_by_a_thirtysecond_at_most_and_never_down() -> None:
    for batch in (1, 64, 1024):
        rates = [sample_rate(records, batch) for records in range(1, 5000)]
        for records, rate in enumerate(rates, start=1):
            exact = min(1.0, batch / records)
            assert exact <= rate <= min(1.0, exact * (1 + 1 / 32))
            assert sample_rate(records, batch) == rate
        assert rates == sorted(rates, reverse=True)
        assert len(set(rates)) <= 1 + 32 * math.log2(5000)


def test_hospitals_of_nearly_one_size_share_noise_and_sample_rate() -> None:
    plans = make_plan(config_of(), {str(records): records for records in range(301, 305)}).hospitals
    assert len({(plan.noise_multiplier, plan.sample_rate) for plan in plans}) == 1


def test_a_rounded_rate_is_drawn_at_and_accounted_as_it_is(federate: Callable[..., Run]) -> None:
    """Not one rate in the ledger and another in the batches: both are the plan's."""
    drawn: list[float] = []
    original = training.poisson_batch

    def recorded(rng: np.random.Generator, records: int, rate: float) -> np.ndarray:
        drawn.append(rate)
        return original(rng, records, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "poisson_batch", recorded)
        run = federate("rates", target_epsilon=100.0, partition="quantity-skew", num_server_rounds=1)
    accounted = set()
    for name, account in run.ledger["hospitals"].items():
        records = next(int(row["records"]) for row in run.rows("hospitals.csv") if row["hospital"] == name)
        rate = account["events"][0]["sample_rate"]
        assert rate == sample_rate(records, 25) >= 25 / records
        accounted.add(rate)
    assert set(drawn) == accounted


def test_one_public_sample_rate_gives_every_hospital_the_same_noise_and_steps() -> None:
    sizes = {"small": 100, "large": 800}
    public, own = (
        {
            (plan.sample_rate, plan.steps_per_round, plan.noise_multiplier)
            for plan in make_plan(config, sizes).hospitals
        }
        for config in (config_of(sample_rate=0.3, local_epochs=2), config_of(local_epochs=2))
    )
    assert len(own) == 2
    ((rate, steps, _noise),) = public
    assert (rate, steps) == (0.3, 8)


JOINT = {
    "noise": "joint",
    "protection": "secagg",
    "local_steps": 1,
    "sample_rate": 0.2,
    "honest_hospitals": 3,
    "dp_scope": "frozen-decoder",
}


def test_joint_noise_is_planned_the_same_for_all_and_has_two_figures() -> None:
    plans = make_plan(config_of(**JOINT), {"small": 100, "large": 800, "third": 300}).hospitals
    assert len({plan.noise_multiplier for plan in plans}) == 1
    for plan in plans:
        assert plan.noise_multiplier is not None and plan.epsilon_total is not None
        whole = JointGaussian(plan.noise_multiplier, 3, 0.2, 4, 1)
        assert plan.everything() == (whole,)
        assert plan.epsilon_total == epsilon([whole], 1e-3).spent <= 2.0
        assert plan.epsilon_alone == epsilon_alone([whole], 1e-3) > 2.0
    own = make_plan(config_of(**(JOINT | {"noise": "own"})), {"small": 100}).hospitals[0]
    assert own.epsilon_alone is None
    assert own.noise_multiplier == pytest.approx(plans[0].noise_multiplier, abs=1e-3)


def test_more_records_than_a_sum_can_hold_are_refused_before_training() -> None:
    with pytest.raises(UserError, match="too many for sums of 32 bits"):
        make_plan(config_of(**JOINT, target_delta=1e-12), {"a": 10**8, "b": 10**8, "c": 10**8})


def test_a_round_of_one_step_is_planned_and_paid_as_one_step() -> None:
    plan = plan_hospital("hospital-0", 200, config_of(local_steps=1, dp_scope="frozen-decoder"))
    assert (plan.sample_rate, plan.steps_per_round) == (0.25, 1)
    assert plan_hospital("hospital-0", 200, config_of()).steps_per_round == 4


def test_each_hospital_is_calibrated_to_the_target_for_its_own_records() -> None:
    plans = make_plan(config_of(), {"small": 100, "large": 800}).hospitals
    for plan in plans:
        assert plan.rounds == 4
        assert plan.noise_multiplier is not None
        all_steps = PoissonGaussian(plan.noise_multiplier, plan.sample_rate, 4 * plan.steps_per_round, 1)
        assert plan.epsilon_total == epsilon([all_steps], 1e-3).spent
        assert 1.9 < plan.epsilon_total <= 2.0
        first = plan.event(1)
        assert first is not None
        assert plan.epsilon_round == epsilon([first], 1e-3).spent
    assert plans[0].noise_multiplier > plans[1].noise_multiplier


def test_one_noise_for_all_costs_the_small_hospital_more_than_the_target() -> None:
    small, large = shared_noise_plan(config_of(), {"small": 100, "large": 800}).hospitals
    assert small.noise_multiplier == large.noise_multiplier
    assert small.epsilon_total > 2.0 > large.epsilon_total


def test_a_fixed_noise_lasts_for_fewer_rounds_and_the_plan_warns() -> None:
    config = config_of(noise_multiplier=1.0, num_server_rounds=50, target_epsilon=4.0)
    plan = plan_hospital("hospital-0", 400, config)
    assert 0 < plan.rounds < 50
    assert f"lasts {plan.rounds} of 50 rounds" in plan.warnings[0]
    steps = plan.steps_per_round
    affordable, one_more = (
        epsilon([PoissonGaussian(1.0, plan.sample_rate, steps * rounds, 1)], 1e-3).spent
        for rounds in (plan.rounds, plan.rounds + 1)
    )
    assert affordable <= 4.0 < one_more
    assert plan.epsilon_total == affordable


def test_a_budget_too_small_for_one_round_plans_none() -> None:
    plan = plan_hospital("hospital-0", 400, config_of(noise_multiplier=0.5, target_epsilon=0.5))
    assert (plan.rounds, plan.epsilon_total) == (0, 0.0)


def test_a_high_sample_rate_is_a_warning_that_names_the_hospital() -> None:
    plan = make_plan(config_of(noise_multiplier=8.0), {"small": 60, "large": 400})
    assert [warning.split(":")[0] for warning in plan.warnings] == ["small"]
    many = make_plan(config_of(noise_multiplier=8.0), {f"h{number}": 60 for number in range(99)})
    assert [warning.split(":")[0] for warning in many.warnings] == ["h0, h1, h2 and 96 more"]
    assert "sample rate 0.84" in plan.warnings[0]


def test_a_delta_of_one_record_or_more_is_refused_by_the_hospitals_name() -> None:
    with pytest.raises(UserError, match="St-Anna") as told:
        make_plan(config_of(noise_multiplier=2.0), {"large": 900, "St-Anna": 1000})
    assert "1000 records" in str(told.value)
    plan_hospital("St-Anna", 999, config_of(noise_multiplier=2.0))


def test_without_dp_nothing_is_calibrated_and_no_delta_is_needed() -> None:
    plan = plan_hospital("hospital-0", 5000, config_of(dp_scope="none"))
    assert (plan.noise_multiplier, plan.epsilon_total, plan.event(1)) == (None, None, None)


@pytest.fixture
def deployed(tmp_path: Path) -> list[dict[str, Any]]:
    """Two nodes with a file and a state directory each; 99 and 135 train records remain of 110 and 150."""
    return [
        {
            "partition-id": index,
            "num-partitions": 2,
            "hospital": name,
            "data-file": str(write_npz(tmp_path / f"{name}.npz", records, seed=index)),
            "state-dir": str(tmp_path / f"state-{name}"),
            "max-epsilon": 1000,
            "max-delta": 1e-3,
        }
        for index, (name, records) in enumerate([("St-Anna", 110), ("Charite", 150)])
    ]


def test_a_deployed_hospital_trains_on_its_own_file_and_keeps_its_own_state(
    federate: Callable[..., Run], deployed: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = federate("run", nodes=deployed, target_epsilon=50.0)
    assert {row["hospital"]: int(row["records"]) for row in run.rows("hospitals.csv")} == {
        "St-Anna": 99,
        "Charite": 135,
    }
    assert not (run.path / "hospitals").exists()
    for name in ("St-Anna", "Charite"):
        assert len(read_ledger(tmp_path / f"state-{name}" / "ledger.jsonl").events) == 2
    assert "every earlier one there, whatever their data files" in (run.path / "privacy_card.md").read_text()


def test_a_deployed_ledger_lasts_over_runs_and_declines_when_the_budget_is_spent(
    federate: Callable[..., Run], deployed: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Budget for three rounds: two in the first run, one in the second, none in the third."""
    plan = plan_hospital("any", 99, config_of(batch_size=25, noise_multiplier=1.5, target_epsilon=900.0))
    three = epsilon([PoissonGaussian(1.5, plan.sample_rate, 3 * plan.steps_per_round, 1)], 1e-3).spent
    first, second, third = (
        federate(name, nodes=deployed, target_epsilon=three) for name in ("first", "second", "third")
    )
    own = "St-Anna"
    spent = [run.summary["epsilon"][own] for run in (first, second, third)]
    assert spent[0] < spent[1] == pytest.approx(three)
    assert spent[2] == spent[1]
    statuses = [
        [row["status"] for row in run.rows("hospitals.csv") if row["hospital"] == own]
        for run in (first, second, third)
    ]
    assert statuses == [["trained", "trained"], ["trained", "stopped"], ["stopped", "stopped"]]
    reasons = [row["reason"] for row in second.rows("hospitals.csv") if row["hospital"] == own]
    assert "would raise the epsilon of the updates" in reasons[1]
    assert len(read_ledger(tmp_path / f"state-{own}" / "ledger.jsonl").events) == 3
    assert len(third.ledger["hospitals"][own]["events"]) == 3
    assert third.summary["status"] == "completed"


def test_a_hospital_with_too_few_records_is_an_error_that_names_it(
    federate: Callable[..., Run], deployed: list[dict[str, Any]]
) -> None:
    with pytest.raises(UserError, match="St-Anna has 99 records, fewer than min-records = 120"):
        federate("run", nodes=deployed, min_records=120)


def test_encodings_alone_are_refused_in_a_deployment(
    federate: Callable[..., Run], deployed: list[dict[str, Any]]
) -> None:
    with pytest.raises(UserError, match="only a simulation"):
        federate("run", nodes=deployed, share="encodings")


def test_a_hospital_that_refused_the_run_reports_no_loss_either(federate: Callable[..., Run]) -> None:
    """A ceiling of epsilon 1 does not go with an un-noised loss of every round."""
    told: list[Message] = []

    class Listening(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type == "evaluate" and reply.has_content():
                told.append(reply)
            return reply

    nodes = simulated_nodes(2)
    nodes[0]["max-epsilon"] = 1.0
    run = federate("run", grid=Listening, nodes=nodes, diagnostics=True)
    assert run.summary["epsilon"]["hospital-0"] == 0.0
    losses = [
        reply.content["claim"]["hospital"]
        for reply in told
        if "loss" in reply.content.metric_records.get("metrics", {})
    ]
    assert set(losses) == {"hospital-1"}


def test_the_plan_is_what_the_hospital_itself_trains_under(federate: Callable[..., Run]) -> None:
    run = federate("run", noise_multiplier=0.0, target_epsilon=3.0, num_server_rounds=1)
    for name, account in run.ledger["hospitals"].items():
        own = read_ledger(run.path / "hospitals" / name / "ledger.jsonl")
        assert [as_dict(event) for event in own.events] == account["events"]
        assert own.terms.target_epsilon == 3.0
        assert math.isclose(epsilon(own.events, 1e-3).spent, run.summary["epsilon"][name])
