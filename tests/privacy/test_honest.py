"""What joint noise costs: under its assumption, without it, and together with other releases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fl_ppae.privacy.accounting import epsilon, epsilon_alone, losses_of_updates, replace_one_epsilon
from fl_ppae.privacy.budget import Ceilings, over_ceiling, over_target
from fl_ppae.privacy.calibration import calibrate_noise_multiplier
from fl_ppae.privacy.events import Declared, Event, JointGaussian, PoissonGaussian, Unprotected
from fl_ppae.privacy.figures import formal_if
from fl_ppae.privacy.groups import Holding, group_epsilon
from fl_ppae.privacy.guarantees import spending_of, updates_figure
from fl_ppae.privacy.honest import assuming, fewest_honest
from fl_ppae.privacy.noise import SAMPLER_EPSILON
from fl_ppae.privacy.terms import Terms
from fl_ppae.privacy.trade_offs import INTERVAL

DELTA = 1e-5
JOINT = JointGaussian(2.0, 4, 0.1, 30, 1)
OWN = PoissonGaussian(2.0, 0.1, 30, 1)
TERMS = Terms("run-a", "frozen-decoder", 100, 2.0, 0.1, 1, 1.0, 8.0, DELTA, honest=4)


def spent(*events: PoissonGaussian | JointGaussian | Declared) -> float:
    return epsilon(events, DELTA).spent


def test_joint_noise_costs_what_own_noise_of_the_same_size_costs_but_for_the_samplers() -> None:
    assert spent(JOINT) == pytest.approx(spent(OWN) + 3 * SAMPLER_EPSILON, abs=1e-12)


@pytest.mark.parametrize("honest", [1, 2, 9, 100])
def test_alone_a_hospital_has_the_noise_of_its_own_share(honest: int) -> None:
    joint = JointGaussian(3.0, honest, 0.1, 30, 1)
    share = PoissonGaussian(3.0 / math.sqrt(honest), 0.1, 30, 1)
    assert epsilon_alone([joint], DELTA) == pytest.approx(spent(share), rel=2e-3)
    assert epsilon_alone([joint], DELTA) >= spent(joint)


def test_own_noise_costs_the_same_alone() -> None:
    assert epsilon_alone([OWN], DELTA) == spent(OWN)


def test_events_of_different_assumptions_count_under_the_weakest_one() -> None:
    """Those planned for more honest hospitals cost more, never less."""
    other = JointGaussian(2.0, 9, 0.1, 30, 2)
    assert fewest_honest([OWN, JOINT, other]) == 4
    as_if = PoissonGaussian(2.0 * 2 / 3, 0.1, 30, 2)
    assert spent(JOINT, other) == pytest.approx(spent(OWN, as_if), abs=1e-3)
    assert spent(JOINT, other) > spent(JOINT, replace(other, honest=4))


def test_an_assumption_is_never_strengthened() -> None:
    assert assuming([OWN, JOINT], 10) == (OWN, JOINT)
    assert assuming([JOINT], 1) == (replace(JOINT, honest=1, noise_multiplier=1.0),)


@pytest.mark.parametrize(
    "history", [(OWN,), (Declared(0.7, 1e-6),), (OWN, Declared(0.7, 1e-6)), (replace(JOINT, round=9),)]
)
def test_what_was_spent_before_composes_with_joint_noise_in_both_figures(history: tuple[Event, ...]) -> None:
    before, both = updates_figure(history, TERMS), updates_figure((*history, JOINT), TERMS)
    joint = updates_figure((JOINT,), TERMS)
    assert before.epsilon is not None and both.epsilon is not None and joint.epsilon is not None
    assert max(before.epsilon, joint.epsilon) < both.epsilon < before.epsilon + joint.epsilon + 0.05
    assert both.alone is not None and joint.alone is not None
    assert both.alone > max(joint.alone, both.epsilon)
    assert both.basis == joint.basis == formal_if(4)


def test_without_joint_noise_a_figure_assumes_nothing() -> None:
    figure = updates_figure((OWN,), TERMS)
    assert (figure.basis, figure.alone) == ("formal", None)


def test_an_unprotected_update_beside_joint_noise_leaves_no_guarantee() -> None:
    plain = Unprotected("updates", "encoder", "train", "run-0", 1)
    assert updates_figure((plain, JOINT), TERMS).basis == "nominal"


def test_the_total_has_both_figures_too() -> None:
    found = spending_of((JOINT,), (JOINT,), TERMS)
    assert (found.honest, found.formal) == (4, True)
    assert found.total == replace_one_epsilon([JOINT], DELTA)
    assert found.total_alone == replace_one_epsilon(assuming([JOINT], 1), DELTA) > found.total
    assert spending_of((OWN,), (OWN,), TERMS).total_alone is None


def test_each_ceiling_stops_a_hospital() -> None:
    asked = (TERMS.event(1),)
    assert asked[0] is not None
    both, alone = spent(JOINT, *asked), epsilon_alone((JOINT, *asked), DELTA)
    enough = Ceilings(both + 1e-6, alone + 1e-6)
    assert over_ceiling((JOINT,), asked, TERMS, enough) == ""
    reason = over_ceiling((JOINT,), asked, TERMS, replace(enough, epsilon=both - 1e-6))
    assert "if at least 4 hospitals in a round are honest, above this hospital's max-epsilon = " in reason
    reason = over_ceiling((JOINT,), asked, TERMS, replace(enough, alone=alone - 1e-6))
    assert "if all others collude, above this hospital's max-epsilon-alone = " in reason
    assert over_ceiling((JOINT,), asked, TERMS, Ceilings()) == ""


def test_a_ceiling_for_colluding_hospitals_holds_for_own_noise_too() -> None:
    total = spent(OWN, replace(OWN, round=2))
    assert over_ceiling((OWN,), (replace(OWN, round=2),), TERMS, Ceilings(alone=total + 1e-9)) == ""
    assert over_ceiling((OWN,), (replace(OWN, round=2),), TERMS, Ceilings(alone=total - 1e-9))


def test_a_run_stops_at_its_target_and_says_what_the_number_assumes() -> None:
    terms = replace(TERMS, target_epsilon=spent(JOINT))
    assert over_target((), (JOINT,), terms) == ""
    reason = over_target((JOINT,), (replace(JOINT, round=2),), terms)
    assert "if at least 4 hospitals in a round are honest, above" in reason


def test_a_rounds_charge_depends_on_its_terms_alone() -> None:
    """Not on who takes part: dropouts leave it as it is."""
    event = TERMS.event(3)
    assert event == JointGaussian(2.0, 4, 0.1, 1, 3)
    assert TERMS.own_noise_multiplier == 1.0
    assert replace(TERMS, honest=0).event(3) == PoissonGaussian(2.0, 0.1, 1, 3)
    assert replace(TERMS, honest=0).own_noise_multiplier == 2.0


@pytest.mark.parametrize("honest", [1, 5, 100])
def test_joint_noise_is_calibrated_with_every_sampler(honest: int) -> None:
    sigma = calibrate_noise_multiplier(0.1, 30, 1.0, DELTA, honest)
    event = JointGaussian(sigma, honest, 0.1, 30, 1)
    assert spent(event) <= 1.0
    assert spent(replace(event, noise_multiplier=0.99 * sigma)) > 1.0


def test_copies_in_two_hospitals_of_one_joint_round_share_its_noise() -> None:
    """They cost what two copies in one hospital cost, and more than two hospitals with own noise each."""
    joint, own = JointGaussian(2.0, 2, 0.2, 20, 1), PoissonGaussian(2.0, 0.2, 20, 1)
    apart = group_epsilon([Holding((joint,), 1), Holding((joint,), 1)], DELTA)
    assert apart == pytest.approx(group_epsilon([Holding((joint,), 2)], DELTA), rel=1e-3)
    assert apart == pytest.approx(group_epsilon([Holding((own,), 2)], DELTA), rel=1e-3)
    assert apart > 1.05 * group_epsilon([Holding((own,), 1), Holding((own,), 1)], DELTA)


def test_a_joint_round_that_one_hospital_left_out_holds_the_others_copies_only() -> None:
    first, second = JointGaussian(2.0, 2, 0.2, 10, 1), JointGaussian(2.0, 2, 0.2, 10, 2)
    both = group_epsilon([Holding((first, second), 1), Holding((first, second), 1)], DELTA)
    one = group_epsilon([Holding((first, second), 1), Holding((first,), 1)], DELTA)
    alone = group_epsilon([Holding((first, second), 1)], DELTA)
    assert alone < one < both


def test_the_losses_of_joint_noise_are_those_of_its_mechanism() -> None:
    joint, own = (losses_of_updates([event], INTERVAL) for event in (JOINT, OWN))
    assert joint.get_epsilon_for_delta(DELTA) == own.get_epsilon_for_delta(DELTA)


@pytest.mark.parametrize("honest", [0, -1, 1_001])
def test_an_impossible_number_of_honest_hospitals_is_refused(honest: int) -> None:
    with pytest.raises(ValueError, match="honest must be in 1 to 1000"):
        replace(JOINT, honest=honest)


@pytest.mark.parametrize(
    "wrong", [{"noise_multiplier": 0.0}, {"sample_rate": 1.1}, {"steps": 0}, {"round": 0}]
)
def test_a_joint_event_with_an_impossible_value_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(JOINT, **wrong)


@pytest.mark.parametrize(("honest", "expected"), [(1, 8.0), (3, 4.01), (5, 2.96), (16, 1.52), (20, 1.34)])
def test_the_utility_of_own_noise_costs_what_the_documentation_says(honest: int, expected: float) -> None:
    """BloodMNIST, hospitals of 2,392 records: batches of 1,024, 60 steps; epsilon 8 with own noise."""
    share = calibrate_noise_multiplier(0.4375, 60, 8.0, DELTA)
    joint = JointGaussian(share * math.sqrt(honest), honest, 0.4375, 60, 1)
    assert epsilon([joint], DELTA).pld == pytest.approx(expected, abs=0.01)
    assert epsilon_alone([joint], DELTA) == pytest.approx(8.0, abs=0.01)
