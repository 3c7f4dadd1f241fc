"""An attack that a run doesn't allow is skipped, or an error if it was asked for by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from attacks.audits import opened
from support import Run

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, result
from fl_ppae.attacks.runner import run_attacks
from fl_ppae.errors import Unmeasurable, UserError
from fl_ppae.leakage.intervals import Estimate, share


def failing(message: str | None) -> Attack:
    row = result("late", "measurement", "metric", Estimate(0.5, 0.4, 0.6, 9))
    return Attack(
        "late",
        "an attack added later",
        "nobody",
        lambda *_: Findings((row,)),
        (MEASUREMENT,),
        (lambda *_: message,),
    )


def test_an_attack_that_can_measure_nothing_costs_no_other_its_result(federate: Callable[..., Run]):
    def measures_nothing(*_: object) -> Findings:
        share(0, 0)
        raise AssertionError("share measured something")

    opening, good = opened(federate("run")), failing(None)
    empty = dataclasses.replace(good, name="empty", run=measures_nothing)
    audit = run_attacks(opening, (empty, good), named=False)
    assert [row.value for row in audit.results] == [0.5]
    assert [(each.attack, each.reason) for each in audit.skipped] == [("empty", "0 of 0")]
    with pytest.raises(Unmeasurable, match="0 of 0"):
        run_attacks(opening, (empty, good), named=True)

    def breaks(*_: object) -> Findings:
        raise ValueError("a fault of the attack's own")

    with pytest.raises(ValueError, match="own"):  # the control: a fault is no skip
        run_attacks(opening, (dataclasses.replace(good, run=breaks),), named=False)


def test_what_a_run_lacks_is_a_skip_among_all_and_an_error_by_name(federate: Callable[..., Run]):
    opening = opened(federate("run"))
    audit = run_attacks(opening, (failing("needs record-messages=true"), failing(None)), named=False)
    assert [row.value for row in audit.results] == [0.5]
    assert [(each.attack, each.reason) for each in audit.skipped] == [("late", "needs record-messages=true")]
    with pytest.raises(UserError, match="late is not possible on run: needs record-messages=true"):
        run_attacks(opening, (failing(None), failing("needs record-messages=true")), named=True)
