"""What a run guarantees for each artefact that left a hospital, and whether everything is formal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fl_ppae.config import PUBLIC, RANDOM, RunConfig
from fl_ppae.privacy.accounting import epsilon, epsilon_alone, replace_one_epsilon
from fl_ppae.privacy.events import (
    ENCODINGS,
    LABELS,
    UPDATES,
    Event,
    Unprotected,
    by_kind,
    unprotected,
    updates,
)
from fl_ppae.privacy.figures import FORMAL, NOMINAL, NONE, REFUTED, Figure, formal_if, largest, written
from fl_ppae.privacy.honest import ALONE, assuming, fewest_honest
from fl_ppae.privacy.scopes import SCOPES, Guarantee, Scope
from fl_ppae.privacy.terms import Terms
from fl_ppae.protection import COMMON_HEAD, shares_head

HEAD = "head"
_NOTHING = Guarantee(0.0, 0.0, FORMAL, "not shared: it never left a hospital")


@dataclass(frozen=True)
class Spending:
    """What one hospital's records have spent in all runs, at this run's delta; None if there is no number.

    Attributes:
        updates: add or remove one record, the larger epsilon of the two accountants.
        encodings: replace one record. Their mechanism composed with the training of the encoder that made
            them, through which a record affects the encodings of all others.
        labels: randomised response alone, at delta 0.
        total: everything, replace one record; its basis is `basis`.
        total_alone: the same if all other hospitals collude; None if it assumes nothing of them.
        added: everything that this run released, replace one record: what it adds at most to whatever was
            known before.
        formal: True if this run may release nothing without a guarantee.
        lost: the delta of the costs that its operator declared for lost events; 0 for none.
        beyond: True if that leaves nothing of the run's delta, so that no total has a number.
        earlier: what earlier runs released without a guarantee.
        refuted: how the hospital's claim was refuted; empty if it wasn't.
        honest: how many honest hospitals in a round the numbers assume; None if they assume nothing.
    """

    updates: Figure
    encodings: float | None
    labels: float | None
    total: float | None
    added: float | None
    formal: bool
    lost: float = 0.0
    beyond: bool = False
    earlier: tuple[Unprotected, ...] = ()
    refuted: str = ""
    honest: int | None = None
    total_alone: float | None = None


def spending_of(events: Sequence[Event], own: Sequence[Event], terms: Terms) -> Spending:
    """What `events`, all that the ledger holds, cost in total; `own` are those of the run under `terms`."""
    _training, _joint, encodings, labels, without, declared = by_kind(events)
    lost = math.fsum(event.delta for event in declared)
    touched = any(event.artefact in (UPDATES, ENCODINGS) for event in without)
    composed = bool(encodings) and SCOPES[terms.scope].formal and not touched
    through_encoder: tuple[Event, ...] = (*updates(events), *encodings)
    total = replace_one_epsilon(events, terms.delta) if terms.formal and not without else None
    honest = fewest_honest(events)
    alone = None
    if total is not None and honest is not None:
        alone = replace_one_epsilon(assuming(events, ALONE), terms.delta)
    return Spending(
        updates=updates_figure(events, terms),
        encodings=replace_one_epsilon(through_encoder, terms.delta) if composed else None,
        labels=sum(event.epsilon for event in labels) if labels else None,
        total=total,
        added=replace_one_epsilon(own, terms.delta) if terms.formal and not unprotected(own) else None,
        formal=terms.formal and not unprotected(own),
        lost=lost,
        beyond=lost >= terms.delta,
        earlier=tuple(event for event in without if event.run != terms.run),
        honest=honest,
        total_alone=alone,
    )


def updates_figure(events: Sequence[Event], terms: Terms) -> Figure:
    """The epsilon of all encoder updates together, add or remove one record.

    It is nominal if some left under scope encoder, and there is none if some left without noise. With joint
    noise it assumes honest hospitals, and stands beside the epsilon if there are none.
    """
    without, counted = unprotected(events), updates(events)
    scopes = [SCOPES[terms.scope], *(SCOPES[event.scope] for event in without if event.artefact == UPDATES)]
    if not all(scope.noised for scope in scopes):
        return Figure(None, NONE)
    honest = fewest_honest(events)
    basis = formal_if(honest) if all(scope.formal for scope in scopes) else NOMINAL
    spent = epsilon(counted, terms.delta).spent
    if not math.isfinite(spent):
        return Figure(None, NONE)
    return Figure(spent, basis, None if honest is None else epsilon_alone(counted, terms.delta))


def guarantees(config: RunConfig, spent: Mapping[str, Spending]) -> dict[str, Guarantee]:
    """The guarantee of each artefact, for one record of one hospital, and the total.

    `spent` is by hospital. The federation's epsilon is the largest: that of a record which stands once.
    Updates are under add-or-remove-one neighbours, everything else under replace-one. All are over the whole
    ledger: what an earlier run released without a guarantee has none in this one either. If a hospital's
    claim was refuted, nothing that left a hospital is guaranteed.
    """
    scope = SCOPES[config.dp_scope]
    delta = config.target_delta
    trained = _updates(scope, spent, delta)
    if config.start not in (RANDOM, PUBLIC):
        trained = replace(
            trained, note=f"{trained.note}; the file that training started from counts as public"
        )
    result = {"updates": trained, "encodings": _NOTHING, "labels": _NOTHING}
    if shares_head(config):
        alone = config.trains == "head"
        beside = (
            "all that learns" if alone else "inside the same clipped and noised sum as the encoder's update"
        )
        result[HEAD] = replace(trained, note=beside)
    if config.classifier == COMMON_HEAD:
        result["classifier"] = replace(trained, note="it is the head, a part of the same noised sum")
    elif not config.shares_encodings:
        result["classifier"] = replace(
            trained,
            note="sees hospital records only through the encoder updates; "
            "the server's own training split is not protected",
        )
    else:
        if not config.shares_updates:
            result["updates"] = _NOTHING
        result["encodings"] = _encodings(config, scope, spent)
        result["labels"] = _labels(config, spent)
        result["classifier"] = _classifier(result, spent, delta)
    if config.diagnostics:
        result["diagnostics"] = Guarantee(None, None, NONE, "un-noised statistics: no guarantee")
    result["total"] = _total(result, spent, delta)
    if any(one.refuted for one in spent.values()):
        return {name: _refuted(name, found, spent) for name, found in result.items()}
    return result


def is_formal(spent: Mapping[str, Spending]) -> bool:
    """True only if everything that left a hospital in this run has a guarantee, whatever left before it."""
    return all(one.formal and not one.refuted for one in spent.values())


def as_row(guarantee: Guarantee) -> dict[str, Any]:
    """The JSON form used in `summary.json`."""
    return {
        "epsilon": guarantee.epsilon,
        "delta": guarantee.delta,
        "formal": guarantee.formal,
        "basis": guarantee.basis,
        "note": guarantee.note,
        **({} if guarantee.alone is None else {"epsilon_alone": guarantee.alone}),
    }


def _updates(scope: Scope, spent: Mapping[str, Spending], delta: float) -> Guarantee:
    figure = largest(one.updates for one in spent.values())
    since = _since(spent, UPDATES)
    note = f"{since}; in this run: {scope.note}" if since else scope.note
    return Guarantee(
        figure.epsilon, None if figure.epsilon is None else delta, figure.basis, note, figure.alone
    )


def _encodings(config: RunConfig, scope: Scope, spent: Mapping[str, Spending]) -> Guarantee:
    if not config.encoding_noise_epsilon:
        return Guarantee(None, None, NONE, "plain: no guarantee, only measured leakage")
    if not scope.formal:
        return Guarantee(
            None,
            None,
            NONE,
            f"noised, but no guarantee: the encoder that made them was trained under dp-scope {scope.name}, "
            "and through it one record can move every encoding",
        )
    if since := _since(spent, UPDATES, ENCODINGS):
        return Guarantee(None, None, NONE, since)
    return Guarantee(
        _largest(one.encodings for one in spent.values()),
        config.target_delta,
        _basis(spent),
        "each clipped and noised (Gaussian mechanism, by itself epsilon "
        f"{config.encoding_noise_epsilon:g}), together with the training of the encoder that made them; "
        "replace one record",
    )


def _labels(config: RunConfig, spent: Mapping[str, Spending]) -> Guarantee:
    if not config.label_epsilon:
        return Guarantee(None, None, NONE, "in the clear: no guarantee")
    if since := _since(spent, LABELS):
        return Guarantee(None, None, NONE, since)
    for name, one in spent.items():
        if one.lost:
            lost = f"counted in the total only: {name} has lost events, which may have been of labels"
            return Guarantee(None, None, NONE, lost)
    besides = (
        "" if config.encoding_noise_epsilon else "; the plain encodings beside them show it all the same"
    )
    return Guarantee(
        _largest(one.labels for one in spent.values()) or 0.0,
        0.0,
        FORMAL,
        f"randomised response: for the label alone, replace one record{besides}",
    )


def _classifier(found: Mapping[str, Guarantee], spent: Mapping[str, Spending], delta: float) -> Guarantee:
    without = [name for name in ("encodings", "labels") if not found[name].formal]
    if without:
        what = " and ".join(without)
        return Guarantee(None, None, NONE, f"trained on {what} without a guarantee: it has none either")
    if since := _since(spent):
        return Guarantee(None, None, NONE, since)
    note = "learned only from noised encodings and labels: their total, replace one record"
    return _all_together(spent, delta, note)


def _total(found: Mapping[str, Guarantee], spent: Mapping[str, Spending], delta: float) -> Guarantee:
    if since := _since(spent):
        added = _largest(one.added for one in spent.values())
        if added is not None and is_formal(spent):
            since += (
                f"; this run adds at most epsilon {written(added, _basis(spent), digits=3)} "
                f"(delta {delta:g}, replace one record) to whatever was known before"
            )
        return Guarantee(None, None, NONE, since)
    without = [name for name, guarantee in found.items() if not guarantee.formal]
    if without:
        return Guarantee(None, None, NONE, f"none: {', '.join(without)} have no guarantee")
    return _all_together(spent, delta, "everything that left a hospital together, replace one record")


def _all_together(spent: Mapping[str, Spending], delta: float, note: str) -> Guarantee:
    """The largest total of the hospitals."""
    figure = largest(Figure(one.total, formal_if(one.honest), one.total_alone) for one in spent.values())
    return Guarantee(figure.epsilon, delta, figure.basis, note, figure.alone)


def _basis(spent: Mapping[str, Spending]) -> str:
    """The basis of a guarantee under the assumptions of all hospitals."""
    return formal_if(max((one.honest for one in spent.values() if one.honest is not None), default=None))


def _refuted(name: str, found: Guarantee, spent: Mapping[str, Spending]) -> Guarantee:
    """Only the epsilon of updates has a number: the largest of claim, events and charges."""
    if found is _NOTHING:
        return found
    reasons = "; ".join(f"{hospital}: {one.refuted}" for hospital, one in spent.items() if one.refuted)
    epsilon = found.epsilon if name == "updates" else None
    return Guarantee(
        epsilon, None if epsilon is None else found.delta, REFUTED, f"refuted, no guarantee: {reasons}"
    )


def _since(spent: Mapping[str, Spending], *artefacts: str) -> str:
    """Which earlier run released one of `artefacts`, by default any, without a guarantee; empty if none.

    Or which hospital has declared a loss that leaves no number at the run's delta.
    """
    for name, one in spent.items():
        if one.beyond:
            return f"none at this delta: the operator of {name} declared a loss at delta {one.lost:g}"
        for event in one.earlier:
            if not artefacts or event.artefact in artefacts:
                return f"none since run {event.run}: {name} released {event.artefact} without a guarantee"
    return ""


def _largest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
