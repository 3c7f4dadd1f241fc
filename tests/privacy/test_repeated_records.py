"""Repeated images are priced by who holds how many copies; many ways to hold them by one bound."""

from dataclasses import replace

import pytest

from fl_ppae.data.repeats import Repeated
from fl_ppae.privacy import repeated_records
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.groups import Holding, group_epsilon
from fl_ppae.privacy.repeated_records import group_costs, holders, in_words

DELTA = 1e-3
EVENTS = {name: (PoissonGaussian(3.0, 0.2, 4 + index, 1),) for index, name in enumerate("abc")}
FOUND = [Repeated(5, (("a", 2, 0),)), Repeated(1, (("a", 1, 0), ("b", 1, 0))), Repeated(2, (("c", 3, 0),))]


def test_each_kind_has_its_own_cost_and_only_what_is_guaranteed_has_a_number() -> None:
    costs = group_costs(FOUND, EVENTS, DELTA, updates=True, everything=False)
    assert [cost.repeated for cost in costs] == FOUND
    assert all(cost.epsilon_replace is None and not cost.at_most for cost in costs)
    assert costs[0].epsilon == group_epsilon([Holding(EVENTS["a"], 2)], DELTA)
    (none, *_) = group_costs(FOUND, EVENTS, DELTA, updates=False, everything=False)
    assert (none.epsilon, none.epsilon_replace) == (None, None)
    (line,) = in_words(costs)
    assert line.startswith("8 images stand in several records of the hospitals")
    assert line.endswith(f"up to epsilon {max(cost.epsilon or 0 for cost in costs):.2f}")
    assert in_words([]) == []


def test_a_group_too_large_for_a_number_has_none_and_is_not_left_out() -> None:
    costs = group_costs([*FOUND, Repeated(1, (("b", 99, 0),))], EVENTS, DELTA, updates=True, everything=True)
    assert (costs[-1].epsilon, costs[-1].epsilon_replace) == (None, None)
    assert in_words(costs)[0].endswith("for which there is no number")


def test_one_bound_covers_many_ways_to_hold_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    each = group_costs(FOUND, EVENTS, DELTA, updates=True, everything=True)
    monkeypatch.setattr(repeated_records, "MOST_PRICED", 2)
    (bound,) = group_costs(FOUND, EVENTS, DELTA, updates=True, everything=True)
    assert bound.at_most
    assert bound.repeated == Repeated(8, (("a", 2, 0), ("b", 1, 0), ("c", 3, 0)))
    for cost in each:
        assert bound.epsilon is not None and cost.epsilon is not None and bound.epsilon > cost.epsilon
        assert bound.epsilon_replace is not None and cost.epsilon_replace is not None
        assert bound.epsilon_replace > cost.epsilon_replace


def test_hospitals_of_the_same_events_are_priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(holdings: tuple[Holding, ...], delta: float) -> float:
        calls.append(holdings)
        return 1.0

    monkeypatch.setattr(repeated_records, "group_epsilon", counted)
    same = {name: EVENTS["a"] for name in "abc"}
    found = [Repeated(1, ((name, 2, 0),)) for name in "abc"]
    assert len(group_costs(found, same, DELTA, updates=True, everything=False)) == 3
    assert len(calls) == 1


def test_holders_are_named_with_their_copies() -> None:
    (one, pair, _) = group_costs(FOUND, EVENTS, DELTA, updates=False, everything=False)
    assert holders(one.document()) == "5 images, each in 2 train records of a"
    assert holders(pair.document()) == "1 image in 1 train record of a and 1 train record of b"
    assert holders(replace(one, at_most=True).document()) == "5 images, each in up to 2 train records of a"
