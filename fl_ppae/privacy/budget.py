"""Whether a planned release fits the run's budgets and the hospital's own ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.events import Event, Gaussian, PoissonGaussian, RandomisedResponse, updates
from fl_ppae.privacy.ledger import Terms


def over_target(spent: Sequence[Event], asked: Sequence[Event], terms: Terms) -> str:
    """Why `asked` on top of `spent` would exceed the run's targets; empty if it would not.

    Updates count against the target epsilon, encodings and labels against their own targets, each over the
    ledger's whole history.
    """
    after = (*spent, *asked)
    kinds = {type(event) for event in asked}
    if PoissonGaussian in kinds:
        total = epsilon(updates(after), terms.delta).spent
        if total > terms.target_epsilon:
            return _over("epsilon of the updates", total, terms.target_epsilon)
    if terms.upload is not None and Gaussian in kinds:
        encodings = [event for event in after if isinstance(event, Gaussian)]
        total = replace_one_epsilon(encodings, terms.delta)
        if total > terms.upload.encoding_epsilon:
            return _over("epsilon of the encodings", total, terms.upload.encoding_epsilon)
    if terms.upload is not None and RandomisedResponse in kinds:
        total = sum(event.epsilon for event in after if isinstance(event, RandomisedResponse))
        if total > terms.upload.label_epsilon:
            return _over("epsilon of the labels", total, terms.upload.label_epsilon)
    return ""


def over_ceiling(spent: Sequence[Event], asked: Sequence[Event], delta: float, ceiling: float | None) -> str:
    """Why `asked` on top of `spent` would exceed the hospital's own ceiling; empty if it would not.

    The ceiling applies to everything together: under add-or-remove-one as long as only updates were
    released, otherwise under replace-one.
    """
    after = (*spent, *asked)
    if ceiling is None or len(after) == len(spent):
        return ""
    training = updates(after)
    if len(training) == len(after):
        total, what = epsilon(training, delta).spent, "epsilon of all updates"
    else:
        total, what = replace_one_epsilon(after, delta), "epsilon (replace-one) of all that was released"
    if total <= ceiling:
        return ""
    return f"it would raise the {what} to {total:.3f}, above this hospital's max-epsilon = {ceiling:g}"


def _over(what: str, total: float, limit: float) -> str:
    return f"it would raise the {what} to {total:.3f}, above {limit:g}"
