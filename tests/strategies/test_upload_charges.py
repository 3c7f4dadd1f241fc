"""The charge for an upload, and the events that the server accepts for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fl_ppae.config import RunConfig
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.plan import plan_hospital, planned_terms
from strategies.server_ledger import EXCLUDED, Account, ServerLedger


def account(**changes: Any) -> tuple[Account, ServerLedger]:
    config = RunConfig.from_flat(
        {
            "dataset": "mnist",
            "batch-size": 25,
            "target-delta": 1e-3,
            "noise-multiplier": 1.5,
            "share": "updates+encodings",
            "encoding-noise-epsilon": 4.0,
            "label-epsilon": 2.0,
        }
    )
    terms = planned_terms(plan_hospital("hospital-0", 100, config), config, "run-a")
    found = Account(terms, **changes)
    return found, ServerLedger({"hospital-0": found})


def settled(server_ledger: ServerLedger, events: tuple[Any, ...], *, declined: bool = False) -> str:
    return server_ledger.settle_upload("hospital-0", events, "", "train", 10, declined=declined)


def test_an_upload_is_charged_when_it_is_asked_for_and_refunded_only_if_declined() -> None:
    own, server_ledger = account()
    server_ledger.charge_upload("hospital-0", "train", 10)
    costs = own.terms.upload_events("train", 10)
    assert own.counted_events() == costs
    assert len(costs) == 2
    assert settled(server_ledger, (), declined=True) == ""
    assert own.counted_events() == ()
    server_ledger.charge_upload("hospital-0", "train", 10)
    assert own.counted_events() == costs, "silence is not refunded"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda costs: (), "without an event"),
        (lambda costs: costs[:1], "without an event"),
        (lambda costs: (replace(costs[0], noise_multiplier=9.0), costs[1]), "differs from the plan"),
        (lambda costs: (costs[0], replace(costs[1], epsilon=0.1)), "differs from the plan"),
        (lambda costs: (replace(costs[0], part="test"), costs[1]), "without an event"),
    ],
)
def test_an_upload_with_wrong_events_is_excluded_and_stays_charged(
    change: Callable[..., tuple[Any, ...]], words: str
) -> None:
    own, server_ledger = account()
    server_ledger.charge_upload("hospital-0", "train", 10)
    costs = own.terms.upload_events("train", 10)
    assert words in settled(server_ledger, change(costs))
    assert own.status == EXCLUDED
    assert own.counted_events() == costs


def test_an_upload_that_forgets_its_history_is_excluded() -> None:
    history = (PoissonGaussian(2.0, 0.1, 7, 1),)
    own, server_ledger = account(history=history)
    costs = own.terms.upload_events("train", 10)
    assert "no longer contain" in settled(server_ledger, costs)
    own, server_ledger = account(history=history)
    assert settled(server_ledger, (*history, *costs)) == ""
