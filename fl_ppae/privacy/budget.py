"""Whether a planned release fits the run's budgets and the hospital's own ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.events import Event, by_kind, priced, unprotected
from fl_ppae.privacy.terms import Terms


def over_target(spent: Sequence[Event], asked: Sequence[Event], terms: Terms) -> str:
    """Why `asked` on top of `spent` would exceed the run's targets; empty if it would not.

    Updates count against the target epsilon, encodings and labels against their own targets, each over the
    ledger's whole history. No target bounds an unprotected release: the hospital's own limits decide on it.
    """
    training, encodings, labels, _unprotected, declared = by_kind((*spent, *asked))
    new_training, new_encodings, new_labels, _unprotected, _declared = by_kind(asked)
    if new_training:
        total = epsilon((*training, *declared), terms.delta).spent
        if total > terms.target_epsilon:
            return _over("epsilon of the updates", total, terms.target_epsilon)
    if terms.upload is not None and new_encodings:
        total = replace_one_epsilon((*encodings, *declared), terms.delta)
        if total > terms.upload.encoding_epsilon:
            return _over("epsilon of the encodings", total, terms.upload.encoding_epsilon)
    if terms.upload is not None and new_labels:
        total = sum(event.epsilon for event in labels) + sum(event.epsilon for event in declared)
        if total > terms.upload.label_epsilon:
            return _over("epsilon of the labels", total, terms.upload.label_epsilon)
    return ""


def over_ceiling(
    spent: Sequence[Event],
    asked: Sequence[Event],
    terms: Terms,
    ceiling: float | None,
    *,
    after_unprotected: bool = False,
) -> str:
    """Why `asked` on top of `spent` would exceed the hospital's own ceiling; empty if it would not.

    The ceiling applies to everything together: under add-or-remove-one as long as only updates were
    released, otherwise under replace-one. If an earlier run released something without a guarantee, the
    total is infinite and above any ceiling. With `after_unprotected`, which the operator sets, the ceiling
    then applies to what does have a cost. What this run releases without a guarantee is the operator's
    choice already, see `hospital.ceilings`.
    """
    if ceiling is None or not asked:
        return ""
    earlier = [event for event in unprotected(spent) if event.run != terms.run]
    if earlier and not after_unprotected:
        return (
            f"{earlier[0].in_words()}, so the total of these records is infinite, above this hospital's "
            f"max-epsilon = {ceiling:g}; this hospital has allow-after-unprotected = false"
        )
    if not priced(asked):
        return ""
    after = priced((*spent, *asked))
    training, encodings, labels, _unprotected, declared = by_kind(after)
    if encodings or labels:
        total, what = (
            replace_one_epsilon(after, terms.delta),
            "epsilon (replace-one) of all that was released",
        )
    else:
        total, what = epsilon((*training, *declared), terms.delta).spent, "epsilon of all updates"
    if total <= ceiling:
        return ""
    return f"it would raise the {what} to {total:.3f}, above this hospital's max-epsilon = {ceiling:g}"


def _over(what: str, total: float, limit: float) -> str:
    return f"it would raise the {what} to {total:.3f}, above {limit:g}"
