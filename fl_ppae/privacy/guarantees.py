"""What a run guarantees for each artefact that left a hospital, and whether everything is formal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fl_ppae.config import RunConfig
from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.events import Event, Gaussian, PoissonGaussian, RandomisedResponse, updates
from fl_ppae.privacy.scopes import SCOPES, Guarantee, Scope

_NOTHING = Guarantee(0.0, 0.0, True, "not shared: it never left a hospital")


@dataclass(frozen=True)
class Spending:
    """What one hospital's records have spent, at the run's delta; None if there is no number.

    Attributes:
        updates: add or remove one record, the larger epsilon of the two accountants.
        encodings: replace one record. Their mechanism composed with the training of the encoder that made
            them, through which a record affects the encodings of all others.
        labels: randomised response alone, at delta 0.
        total: everything, replace one record.
    """

    updates: float | None
    encodings: float | None
    labels: float | None
    total: float | None


def spending_of(events: Sequence[Event], delta: float, *, private_training: bool) -> Spending:
    """What `events` cost in total. After training without noise, what depends on it has no number."""
    labels = [event.epsilon for event in events if isinstance(event, RandomisedResponse)]
    with_encodings = [event for event in events if isinstance(event, PoissonGaussian | Gaussian)]
    released = len(with_encodings) > len(updates(events))
    return Spending(
        updates=epsilon(updates(events), delta).spent if private_training else None,
        encodings=replace_one_epsilon(with_encodings, delta) if private_training and released else None,
        labels=sum(labels) if labels else None,
        total=replace_one_epsilon(events, delta) if private_training else None,
    )


def guarantees(config: RunConfig, spent: Mapping[str, Spending]) -> dict[str, Guarantee]:
    """The guarantee of each artefact, for one record of one hospital, and the total.

    `spent` is by hospital. The federation's epsilon is the largest, because hospitals hold disjoint records.
    Updates are under add-or-remove-one neighbours, everything else under replace-one.
    """
    scope = SCOPES[config.dp_scope]
    delta = config.target_delta
    trained = scope.guarantee(_largest(one.updates for one in spent.values()), delta)
    total = _largest(one.total for one in spent.values())
    result = {"updates": trained, "encodings": _NOTHING, "labels": _NOTHING}
    if not config.shares_encodings:
        result["classifier"] = Guarantee(
            trained.epsilon,
            trained.delta,
            trained.formal,
            "sees hospital records only through the encoder updates; "
            "the server's own training split is not protected",
        )
    else:
        if not config.shares_updates:
            result["updates"] = _NOTHING
        result["encodings"] = _encodings(config, scope, _largest(one.encodings for one in spent.values()))
        result["labels"] = _labels(config, _largest(one.labels for one in spent.values()))
        result["classifier"] = _classifier(result, total, delta)
    if config.diagnostics:
        result["diagnostics"] = Guarantee(None, None, False, "un-noised statistics: no guarantee")
    result["total"] = _total(result, total, delta)
    return result


def is_formal(all_guarantees: Mapping[str, Guarantee]) -> bool:
    """True only if everything that left a hospital has a guarantee."""
    return all(guarantee.formal for guarantee in all_guarantees.values())


def _encodings(config: RunConfig, scope: Scope, spent: float | None) -> Guarantee:
    if not config.encoding_noise_epsilon:
        return Guarantee(None, None, False, "plain: no guarantee, only measured leakage")
    if not scope.formal:
        return Guarantee(
            None,
            None,
            False,
            f"noised, but no guarantee: the encoder that made them was trained under dp-scope {scope.name}, "
            "and through it one record can move every encoding",
        )
    return Guarantee(
        spent,
        config.target_delta,
        True,
        "each clipped and noised (Gaussian mechanism, by itself epsilon "
        f"{config.encoding_noise_epsilon:g}), together with the training of the encoder that made them; "
        "replace one record",
    )


def _labels(config: RunConfig, spent: float | None) -> Guarantee:
    if not config.label_epsilon:
        return Guarantee(None, None, False, "in the clear: no guarantee")
    besides = (
        "" if config.encoding_noise_epsilon else "; the plain encodings beside them show it all the same"
    )
    return Guarantee(
        spent or 0.0, 0.0, True, f"randomised response: for the label alone, replace one record{besides}"
    )


def _classifier(found: Mapping[str, Guarantee], total: float | None, delta: float) -> Guarantee:
    without = [name for name in ("encodings", "labels") if not found[name].formal]
    if without:
        what = " and ".join(without)
        return Guarantee(None, None, False, f"trained on {what} without a guarantee: it has none either")
    return Guarantee(
        total, delta, True, "learned only from noised encodings and labels: their total, replace one record"
    )


def _total(found: Mapping[str, Guarantee], total: float | None, delta: float) -> Guarantee:
    without = [name for name, guarantee in found.items() if not guarantee.formal]
    if without:
        return Guarantee(None, None, False, f"none: {', '.join(without)} have no guarantee")
    return Guarantee(total, delta, True, "everything that left a hospital together, replace one record")


def _largest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
