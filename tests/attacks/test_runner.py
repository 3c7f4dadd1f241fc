"""An attack that a run doesn't allow is skipped, or an error if it was asked for by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attacks.audits import opened
from support import Run

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, result
from fl_ppae.attacks.runner import run_attacks
from fl_ppae.errors import UserError
from fl_ppae.leakage.intervals import Estimate


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


def test_what_a_run_lacks_is_a_skip_among_all_and_an_error_by_name(federate: Callable[..., Run]):
    opening = opened(federate("run"))
    audit = run_attacks(opening, (failing("needs record-messages=true"), failing(None)), named=False)
    assert [row.value for row in audit.results] == [0.5]
    assert [(each.attack, each.reason) for each in audit.skipped] == [("late", "needs record-messages=true")]
    with pytest.raises(UserError, match="late is not possible on run: needs record-messages=true"):
        run_attacks(opening, (failing(None), failing("needs record-messages=true")), named=True)
