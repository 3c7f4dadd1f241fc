"""Budgets count everything that a hospital has released, each kind against its own target."""

from dataclasses import replace
from pathlib import Path

import pytest

from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.budget import Ceilings, over_ceiling, over_target
from fl_ppae.privacy.counter import Counter
from fl_ppae.privacy.events import (
    ARTEFACTS,
    Declared,
    Gaussian,
    PoissonGaussian,
    RandomisedResponse,
    Unprotected,
)
from fl_ppae.privacy.ledger import open_run, read_ledger
from fl_ppae.privacy.terms import Terms, UploadTerms

UPLOAD = UploadTerms(4.0, 2.0, 1.5, 10)
TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3, UPLOAD)


def test_budgets_count_the_whole_history_kind_by_kind() -> None:
    gaussian, labels = UPLOAD.events("train", 2)
    training = (PoissonGaussian(1.5, 0.25, 4, 1),)
    assert over_target(training, (gaussian, labels), TERMS) == ""
    assert "epsilon of the encodings" in over_target((*training, gaussian), (gaussian,), TERMS)
    assert "epsilon of the labels to 3.000, above 1.5" in over_target((labels,), (labels,), TERMS)
    tight = replace(TERMS, target_epsilon=epsilon(training, 1e-3).spent)
    assert over_target((gaussian, labels), training, tight) == "", "uploads do not count as updates"
    assert "epsilon of the updates" in over_target(training, training, tight)


def test_a_ceiling_counts_everything_together_and_nothing_asked_is_never_over_it() -> None:
    gaussian, labels = UPLOAD.events("train", 2)
    training = PoissonGaussian(1.5, 0.25, 4, 1)
    added = epsilon([training], 1e-3).spent
    assert over_ceiling((), (training,), TERMS, Ceilings(added)) == ""
    assert "epsilon of all updates" in over_ceiling((training,), (training,), TERMS, Ceilings(added))
    total = replace_one_epsilon((training, gaussian, labels), 1e-3)
    assert over_ceiling((training,), (gaussian, labels), TERMS, Ceilings(total)) == ""
    assert "(replace-one)" in over_ceiling((training,), (gaussian, labels), TERMS, Ceilings(total - 0.01))
    assert over_ceiling((training, gaussian), (), TERMS, Ceilings(0.1)) == ""
    assert over_ceiling((training,), (gaussian,), TERMS, Ceilings(None)) == ""


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_after_an_unprotected_release_a_ceiling_declines_unless_the_operator_allows_it(artefact: str) -> None:
    training = PoissonGaussian(1.5, 0.25, 4, 1)
    earlier = Unprotected(artefact, "none", "train", "run-z", 1)
    asked = (training,)
    reason = over_ceiling((earlier,), asked, TERMS, Ceilings(8.0))
    assert f"run run-z released {artefact} without a guarantee" in reason
    assert "max-epsilon = 8" in reason
    assert "allow-after-unprotected" in reason
    assert over_ceiling((earlier,), asked, TERMS, Ceilings(None)) == "", "no ceiling, nothing to decline for"
    assert over_ceiling((earlier,), asked, TERMS, Ceilings(8.0), after_unprotected=True) == ""
    tight = epsilon(asked, 1e-3).spent - 0.01
    over = over_ceiling((earlier,), asked, TERMS, Ceilings(tight), after_unprotected=True)
    assert "epsilon of all updates" in over, "what has a cost still counts against the ceiling"
    own = replace(earlier, run=TERMS.run)
    assert over_ceiling((own,), asked, TERMS, Ceilings(8.0)) == "", (
        "the node's other keys allowed what this run releases"
    )
    assert over_ceiling((training,), (own,), TERMS, Ceilings(0.1)) == ""


def test_no_target_bounds_an_unprotected_release() -> None:
    plain = Unprotected("encodings", "autoencoder", "train", "run-a", 1)
    assert over_target((), (plain,), TERMS) == ""


def test_a_torn_line_counts_as_whatever_the_terms_could_have_announced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = open_run(path, TERMS, Counter(tmp_path / "counter.json"))
    event = TERMS.event(1)
    assert event is not None
    ledger = ledger.announce(event, *TERMS.upload_events("train", 1))
    content = path.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(content[: start + 9])
    found = read_ledger(path)
    assert set(ledger.events[:2]) < set(found.events)
    assert {type(event) for event in found.events[2:]} == {PoissonGaussian, Gaussian, RandomisedResponse}
    assert replace_one_epsilon(found.events, 1e-3) > replace_one_epsilon(ledger.events, 1e-3)
    assert read_ledger(path) == found


def test_a_declared_loss_counts_against_every_budget_and_the_ceiling() -> None:
    training = (PoissonGaussian(1.5, 0.25, 4, 1),)
    gaussian, labels = UPLOAD.events("train", 2)
    lost = (Declared(8.0, 1e-4),)
    assert over_target((), training, TERMS) == over_ceiling((), training, TERMS, Ceilings(9.0)) == ""
    assert "epsilon of the updates" in over_target(lost, training, TERMS)
    assert "epsilon of the encodings" in over_target(lost, (gaussian,), TERMS)
    assert "epsilon of the labels" in over_target(lost, (labels,), TERMS)
    assert "above this hospital's max-epsilon = 9" in over_ceiling(lost, training, TERMS, Ceilings(9.0))
    assert over_ceiling(lost, training, TERMS, Ceilings(30.0)) == "", "unless the operator raises it"
    at_its_delta = (Declared(8.0, 1e-3),)
    assert "to inf" in over_ceiling(at_its_delta, training, TERMS, Ceilings(1e6))
