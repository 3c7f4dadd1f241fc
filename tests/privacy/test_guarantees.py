"""What a run promises after earlier runs on the same records, and after a refuted claim."""

from dataclasses import replace
from typing import Any

import pytest
from support import SMALL

from fl_ppae.config import RunConfig
from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.events import Declared, Event, PoissonGaussian, Unprotected
from fl_ppae.privacy.figures import FORMAL, NOMINAL, NONE, REFUTED
from fl_ppae.privacy.guarantees import Spending, guarantees, is_formal, spending_of
from fl_ppae.privacy.plan import plan_hospital, planned_terms
from fl_ppae.privacy.terms import Terms

EARLIER = PoissonGaussian(2.0, 0.25, 4, 1)


def config(**changes: Any) -> RunConfig:
    values = {**SMALL, "data-file": "any.npz", **changes}
    return RunConfig.from_flat({key.replace("_", "-"): value for key, value in values.items()})


def terms_of(run: RunConfig) -> Terms:
    return planned_terms(plan_hospital("hospital-0", 100, run), run, "run-b")


def left(artefact: str, scope: str = "none", part: str = "train") -> Unprotected:
    return Unprotected(artefact, scope, part, "run-a", 1)


def spent(run: RunConfig, *history: Event) -> tuple[Spending, tuple[Event, ...]]:
    terms = terms_of(run)
    own = (*terms.round_events(1), *terms.upload_events("train", 1))
    return spending_of((*history, *own), own, terms), own


def test_a_first_formal_run_has_a_total_that_is_all_it_adds() -> None:
    run = config()
    found, own = spent(run, EARLIER)
    assert found.total == replace_one_epsilon((EARLIER, *own), 1e-3)
    assert found.added == replace_one_epsilon(own, 1e-3) < found.total
    promised = guarantees(run, {"hospital-0": found})
    assert is_formal({"hospital-0": found})
    assert promised["total"].formal
    assert promised["total"].epsilon == found.total


def test_an_accepted_loss_is_in_every_number_and_leaves_none_at_its_own_delta() -> None:
    run = config(share="updates+encodings", encoding_noise_epsilon=4.0, label_epsilon=2.0)
    clean, _ = spent(run, EARLIER)
    found, _ = spent(run, EARLIER, Declared(5.0, 1e-4))
    promised = guarantees(run, {"hospital-0": found})
    for name in ("updates", "encodings"):
        before = guarantees(run, {"hospital-0": clean})[name].epsilon
        after = promised[name].epsilon
        assert promised[name].formal and before is not None and after is not None and after > before + 5
    assert not promised["labels"].formal
    assert "counted in the total only" in promised["labels"].note
    found, _ = spent(run, EARLIER, Declared(5.0, 1e-3))
    for guarantee in guarantees(run, {"hospital-0": found}).values():
        assert not guarantee.formal
        assert guarantee.epsilon is None


@pytest.mark.parametrize("artefact", ["updates", "encodings", "labels", "diagnostics"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_after_an_unprotected_release_there_is_no_total_but_a_bound_on_what_is_added(
    artefact: str, part: str
) -> None:
    run = config()
    found, own = spent(run, EARLIER, left(artefact, part=part))
    clean, _ = spent(run, EARLIER)
    both = {"hospital-0": clean, "hospital-1": found}
    promised = guarantees(run, both)
    assert (promised["total"].epsilon, promised["total"].formal) == (None, False)
    note = promised["total"].note
    assert note.startswith(f"none since run run-a: hospital-1 released {artefact} without a guarantee")
    assert (
        f"adds at most epsilon {replace_one_epsilon(own, 1e-3):.3f} (delta 0.001, replace one record)" in note
    )
    assert is_formal(both), "this run's own releases have guarantees"


@pytest.mark.parametrize(("scope", "basis"), [("none", NONE), ("encoder", NOMINAL)])
def test_unprotected_updates_of_an_earlier_run_leave_the_updates_without_a_guarantee(
    scope: str, basis: str
) -> None:
    run = config()
    nominal = (EARLIER,) if scope == "encoder" else ()
    found, own = spent(run, *nominal, left("updates", scope))
    promised = guarantees(run, {"hospital-0": found})
    assert promised["updates"].basis == found.updates.basis == basis
    training = [event for event in own if isinstance(event, PoissonGaussian)]
    number = epsilon([EARLIER, *training], 1e-3).spent if scope == "encoder" else None
    assert promised["updates"].epsilon == number
    assert promised["updates"].note.startswith("none since run run-a")
    assert promised["classifier"].basis == basis


def test_other_artefacts_leave_the_epsilon_of_the_updates_as_it_was() -> None:
    run = config()
    clean, _ = spent(run, EARLIER)
    for artefact in ("encodings", "labels", "diagnostics"):
        found, _ = spent(run, EARLIER, left(artefact))
        assert found.updates == clean.updates
        assert found.updates.basis == FORMAL


@pytest.mark.parametrize("artefact", ["updates", "encodings", "labels"])
def test_a_noised_upload_after_the_same_artefact_left_plain_has_no_guarantee_either(artefact: str) -> None:
    run = config(share="updates+encodings", encoding_noise_epsilon=4.0, label_epsilon=2.0, projection_size=5)
    found, _ = spent(run, left(artefact))
    promised = guarantees(run, {"hospital-0": found})
    control = guarantees(run, {"hospital-0": spent(run)[0]})
    touched = {"updates": ["updates", "encodings"], "encodings": ["encodings"], "labels": ["labels"]}[
        artefact
    ]
    assert [name for name in ("updates", "encodings", "labels") if not promised[name].formal] == touched
    for name in ("classifier", "total"):
        assert promised[name].epsilon is None
        assert not promised[name].formal
    assert all(guarantee.formal for guarantee in control.values())


def test_a_run_that_itself_releases_something_unprotected_bounds_nothing() -> None:
    for changes in ({"dp_scope": "none"}, {"dp_scope": "encoder"}, {"share": "updates+encodings"}):
        run = config(**changes)
        found, _ = spent(run, left("labels"))
        assert (found.total, found.added) == (None, None)
        assert "adds at most" not in guarantees(run, {"hospital-0": found})["total"].note
        assert not is_formal({"hospital-0": found})


def test_after_a_refuted_claim_nothing_that_left_is_formal() -> None:
    run = config()
    found, _ = spent(run)
    refuted = replace(found, updates=replace(found.updates, epsilon=50.0, basis=REFUTED), refuted="it lied")
    both = {"hospital-0": found, "hospital-1": refuted}
    promised = guarantees(run, both)
    assert not is_formal(both)
    assert (promised["updates"].epsilon, promised["updates"].basis) == (50.0, REFUTED)
    for name in ("updates", "classifier", "total"):
        assert not promised[name].formal
        assert "hospital-1: it lied" in promised[name].note
    assert all(guarantee.formal for guarantee in guarantees(run, {"hospital-0": found}).values())


def test_a_run_says_what_its_head_stands_beside_and_what_it_takes_for_public() -> None:
    keys = {"local_steps": 1, "objective": "task"}
    notes = {}
    for name, changes in {
        "all": {},
        "head": {"trains": "head"},
        "file": {"start": "any.safetensors"},
    }.items():
        run = config(**keys, **changes)
        promised = guarantees(run, {"hospital-0": spent(run)[0]})
        assert promised["head"].formal and promised["head"].epsilon == promised["updates"].epsilon
        notes[name] = (promised["head"].note, promised["updates"].note)
    assert "encoder's update" in notes["all"][0] and notes["head"][0] == "all that learns"
    assert "counts as public" in notes["file"][1] and "public" not in notes["all"][1]
