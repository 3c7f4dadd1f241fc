"""Whether a planned release fits the run's budgets and the hospital's own ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_ppae.privacy.accounting import epsilon, epsilon_alone, replace_one_epsilon
from fl_ppae.privacy.events import Event, by_kind, priced, unprotected, updates
from fl_ppae.privacy.figures import formal_if, written
from fl_ppae.privacy.honest import ALONE, assuming, fewest_honest
from fl_ppae.privacy.terms import Terms

MAX_EPSILON, MAX_EPSILON_ALONE = "max-epsilon", "max-epsilon-alone"


@dataclass(frozen=True)
class Ceilings:
    """The most that a hospital's records may ever spend; None: no limit.

    Attributes:
        epsilon: under what each joint release assumes of the other hospitals.
        alone: if all other hospitals collude.
    """

    epsilon: float | None = None
    alone: float | None = None

    def set_ones(self) -> dict[str, float]:
        """Those that limit something, by their keys in the node config."""
        both = {MAX_EPSILON: self.epsilon, MAX_EPSILON_ALONE: self.alone}
        return {key: ceiling for key, ceiling in both.items() if ceiling is not None}


def over_target(spent: Sequence[Event], asked: Sequence[Event], terms: Terms) -> str:
    """Why `asked` on top of `spent` would exceed the run's targets; empty if it would not.

    Updates count against the target epsilon, encodings and labels against their own targets, each over the
    ledger's whole history. No target bounds an unprotected release: the hospital's own limits decide on it.
    """
    after = (*spent, *asked)
    _training, _joint, encodings, labels, _unprotected, declared = by_kind(after)
    new_training, new_joint, new_encodings, new_labels, _unprotected, _declared = by_kind(asked)
    if new_training or new_joint:
        total = epsilon(updates(after), terms.delta).spent
        if total > terms.target_epsilon:
            found = _in_words(total, after)
            return _over("epsilon of the updates", found, f"{terms.target_epsilon:g}")
    if terms.upload is not None and new_encodings:
        total = replace_one_epsilon((*encodings, *declared), terms.delta)
        if total > terms.upload.encoding_epsilon:
            return _over("epsilon of the encodings", f"{total:.3f}", f"{terms.upload.encoding_epsilon:g}")
    if terms.upload is not None and new_labels:
        total = sum(event.epsilon for event in labels) + sum(event.epsilon for event in declared)
        if total > terms.upload.label_epsilon:
            return _over("epsilon of the labels", f"{total:.3f}", f"{terms.upload.label_epsilon:g}")
    return ""


def over_ceiling(
    spent: Sequence[Event],
    asked: Sequence[Event],
    terms: Terms,
    ceilings: Ceilings,
    *,
    after_unprotected: bool = False,
) -> str:
    """Why `asked` on top of `spent` would exceed one of the hospital's own ceilings; empty if it would not.

    A ceiling applies to everything together: under add-or-remove-one as long as only updates were
    released, otherwise under replace-one. If an earlier run released something without a guarantee, the
    total is infinite and above any ceiling. With `after_unprotected`, which the operator sets, the ceiling
    then applies to what does have a cost. What this run releases without a guarantee is the operator's
    choice already, see `hospital.ceilings`.
    """
    set_ones = ceilings.set_ones()
    if not set_ones or not asked:
        return ""
    earlier = [event for event in unprotected(spent) if event.run != terms.run]
    if earlier and not after_unprotected:
        key, ceiling = next(iter(set_ones.items()))
        return (
            f"{earlier[0].in_words()}, so the total of these records is infinite, above this hospital's "
            f"{key} = {ceiling:g}; this hospital has allow-after-unprotected = false"
        )
    if not priced(asked):
        return ""
    after = priced((*spent, *asked))
    for key, ceiling in set_ones.items():
        alone = key == MAX_EPSILON_ALONE
        total, what = _total(after, terms.delta, alone=alone)
        if total > ceiling:
            found = f"{total:.3f} if all others collude" if alone else _in_words(total, after)
            return _over(what, found, f"this hospital's {key} = {ceiling:g}")
    return ""


def _total(after: Sequence[Event], delta: float, *, alone: bool) -> tuple[float, str]:
    _training, _joint, encodings, labels, _unprotected, _declared = by_kind(after)
    if encodings or labels:
        counted = assuming(after, ALONE) if alone else after
        return replace_one_epsilon(counted, delta), "epsilon (replace-one) of all that was released"
    trained = updates(after)
    total = epsilon_alone(trained, delta) if alone else epsilon(trained, delta).spent
    return total, "epsilon of all updates"


def _in_words(total: float, after: Sequence[Event]) -> str:
    """A total with what it assumes of the other hospitals."""
    return written(total, formal_if(fewest_honest(after)), digits=3)


def _over(what: str, total: str, limit: str) -> str:
    return f"it would raise the {what} to {total}, above {limit}"
