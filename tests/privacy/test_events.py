"""Every release is an event, and whatever counts events refuses a kind that it doesn't know."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, cast

import pytest

from fl_ppae.messages import DECLINED, TRAINED, Claim
from fl_ppae.privacy import accounting, budget, guarantees
from fl_ppae.privacy.accounting import replace_one_epsilon
from fl_ppae.privacy.budget import Ceilings, over_ceiling, over_target
from fl_ppae.privacy.events import (
    Event,
    Gaussian,
    JointGaussian,
    PoissonGaussian,
    RandomisedResponse,
    Unprotected,
    as_dict,
    by_kind,
    from_dict,
    priced,
    trained,
    unprotected,
    updates,
)
from fl_ppae.privacy.groups import Holding, group_epsilon
from fl_ppae.privacy.guarantees import spending_of, updates_figure
from fl_ppae.privacy.honest import fewest_honest
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.privacy.terms import Terms, UploadTerms
from strategies.server_ledger import Account, ServerLedger

UPLOAD = UploadTerms(4.0, 2.0, 1.5, 10)
TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3, UPLOAD)
TRAINING = PoissonGaussian(1.5, 0.25, 4, 1)


@dataclass(frozen=True)
class Novel:
    """A kind of event that nobody has thought of yet."""

    mechanism: ClassVar[str] = "novel"
    round: int = 1
    part: str = "train"
    epsilon: float = 1.0
    noise_multiplier: float = 1.5


def settled(events: tuple[Event, ...]) -> None:
    server_ledger = ServerLedger({"hospital-0": Account(TERMS)})
    server_ledger.settle("hospital-0", Claim("hospital-0", DECLINED, "", events, 0.0), 1)


CONSUMERS: dict[str, Callable[[tuple[Event, ...]], Any]] = {
    "by_kind": by_kind,
    "updates": updates,
    "unprotected": unprotected,
    "priced": priced,
    "trained": trained,
    "fewest_honest": fewest_honest,
    "group_epsilon": lambda events: group_epsilon([Holding(events, 1)], 1e-3),
    "replace_one_epsilon": lambda events: replace_one_epsilon(events, 1e-3),
    "over_target, asked": lambda events: over_target((), events, TERMS),
    "over_target, spent": lambda events: over_target(events, (TRAINING,), TERMS),
    "over_ceiling, asked": lambda events: over_ceiling((), events, TERMS, Ceilings(8.0)),
    "over_ceiling, spent": lambda events: over_ceiling(events, (TRAINING,), TERMS, Ceilings(8.0)),
    "spending_of": lambda events: spending_of(events, (), TERMS),
    "spending_of, own": lambda events: spending_of((), events, TERMS),
    "updates_figure": lambda events: updates_figure(events, TERMS),
    "counted_events": lambda events: Account(TERMS, events, claimed=events).counted_events(),
    "figure": lambda events: Account(TERMS, events).figure(),
    "settle": settled,
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_whatever_counts_events_raises_on_a_kind_it_does_not_know(name: str) -> None:
    CONSUMERS[name]((TRAINING,))  # the control
    with pytest.raises(AssertionError, match="Novel"):
        CONSUMERS[name]((TRAINING, cast(Event, Novel())))


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (budget, lambda: over_target((), (TRAINING,), TERMS)),
        (budget, lambda: over_ceiling((), (TRAINING,), TERMS, Ceilings(8.0))),
        (guarantees, lambda: spending_of((TRAINING,), (), TERMS)),
        (accounting, lambda: replace_one_epsilon((replace(TRAINING, steps=9),), 2e-3)),
    ],
)
def test_a_kind_that_was_added_breaks_each_place_that_says_nothing_about_it(
    module: Any, count: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "by_kind", lambda events: (*by_kind(events), ()))
    with pytest.raises(ValueError, match="too many values to unpack"):
        count()


EVERY_KIND: list[Event] = [
    TRAINING,
    JointGaussian(1.5, 3, 0.25, 1, 1),
    Gaussian(2.0, "test", 3),
    RandomisedResponse(1.5, 10, 3),
    Unprotected("labels", "none", "train", "17", 3),
]


@pytest.mark.parametrize("event", EVERY_KIND)
def test_an_event_is_read_back_as_it_was_written(event: Event) -> None:
    assert from_dict(as_dict(event)) == event


@pytest.mark.parametrize(
    "change",
    [
        {"artefact": "decoder"},
        {"scope": "some"},
        {"part": "val"},
        {"round": 0},
        {"run": ""},
        {"run": "7**\n\n# Guarantee"},
        {"run": 7},
    ],
)
def test_an_unprotected_event_with_an_impossible_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        from_dict({**as_dict(EVERY_KIND[-1]), **change})


@pytest.mark.parametrize("event", EVERY_KIND[:-1])
def test_one_unprotected_release_makes_the_total_infinite(event: Event) -> None:
    assert replace_one_epsilon([event], 1e-3) < 20
    for part in ("train", "test"):
        plain = Unprotected("encodings", "autoencoder", part, "run-a", 1)
        assert replace_one_epsilon([event, plain], 1e-3) == float("inf")


GRID = list(product(SCOPES, (False, True), (False, True), (None, 0.0, 1.0), (0.0, 1.5)))


@pytest.mark.parametrize(("scope", "shares_updates", "diagnostics", "noise", "label"), GRID)
def test_terms_announce_every_release(
    scope: str, shares_updates: bool, diagnostics: bool, noise: float | None, label: float
) -> None:
    """`noise` on encodings: None if none are shared, 0 if they are plain."""
    upload = UploadTerms(4.0, noise or None, label, 10) if noise is not None else None
    sigma = 1.5 if SCOPES[scope].noised else None
    terms = replace(
        TERMS,
        scope=scope,
        noise_multiplier=sigma,
        upload=upload,
        shares_updates=shares_updates,
        diagnostics=diagnostics,
    )
    private = scope in ("autoencoder", "frozen-decoder")
    without = {
        *([("updates", "train")] if shares_updates and not private else []),
        *([("diagnostics", "train")] if diagnostics else []),
    }
    if upload is not None:
        without |= {("encodings", "train")} if not private else set()
        without |= {("encodings", "train"), ("encodings", "test")} if not noise else set()
        without |= {("labels", "train")} if not label else set()
    events = terms.any_events(2)
    assert {(event.artefact, event.part) for event in unprotected(events)} == without
    assert {(event.scope, event.run, event.round) for event in unprotected(events)} <= {(scope, "run-a", 2)}
    assert terms.formal == (not without)
    training, _joint, encodings, labels, *_ = by_kind(events)
    assert [bool(training), bool(encodings), bool(labels)] == [
        scope != "none",
        bool(noise),
        upload is not None and bool(label),
    ]
    assert set(terms.round_events(2)) | {
        e for p in ("train", "test") for e in terms.upload_events(p, 2)
    } == set(events)


def test_the_server_expects_an_event_for_a_release_without_a_guarantee() -> None:
    terms = replace(TERMS, scope="none", noise_multiplier=None, diagnostics=True)
    for missing in range(3):
        events = tuple(e for i, e in enumerate(terms.round_events(1)) if i != missing)
        server_ledger = ServerLedger({"hospital-0": Account(terms)})
        server_ledger.charge("hospital-0", 1)
        server_ledger.settle("hospital-0", Claim("hospital-0", TRAINED, "", events, float("inf")), 1)
        assert bool(server_ledger.refuted()) == (missing < 2), "two events make a round of these terms"
