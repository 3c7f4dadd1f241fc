"""The cost of records that stand in the data several times, by `privacy.groups`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal, held_identities
from fl_ppae.data.repeats import Repeated, repeated_records
from fl_ppae.privacy.events import TEST_PART, Event
from fl_ppae.privacy.figures import formal_if, written
from fl_ppae.privacy.groups import Holding, group_epsilon, group_replace_epsilon
from fl_ppae.privacy.honest import fewest_honest
from fl_ppae.privacy.plan import Plan
from fl_ppae.privacy.scopes import SCOPES

MOST_PRICED = 24
"""Of different ways to hold a record. If there are more, one bound covers them all."""


@dataclass(frozen=True)
class GroupCost:
    """What all copies of one image together pay.

    Attributes:
        repeated: how many such images, and who holds how many copies.
        at_most: no image has more copies than these in any hospital, but some have fewer.
        epsilon: of the encoder updates, add or remove all copies; None if one record has no guarantee, or
            if the copies are too many for a number.
        epsilon_replace: of everything that left, replace all copies; None likewise.
        honest: how many honest hospitals in a round both assume; None if they assume nothing.
    """

    repeated: Repeated
    at_most: bool
    epsilon: float | None
    epsilon_replace: float | None
    honest: int | None = None

    def document(self) -> dict[str, Any]:
        """The JSON form in `summary.json` and in `fl-ppae plan --json`."""
        return {
            "images": self.repeated.images,
            "at_most": self.at_most,
            "copies": {name: {"train": train, "test": test} for name, train, test in self.repeated.copies},
            "epsilon": self.epsilon,
            "epsilon_replace": self.epsilon_replace,
            "basis": formal_if(self.honest),
        }


def in_words(costs: Sequence[GroupCost]) -> list[str]:
    """One sentence on the cost of repeated images, without a full stop; empty if there are none."""
    if not costs:
        return []
    images = sum(cost.repeated.images for cost in costs)
    known = [cost.epsilon if cost.epsilon is not None else cost.epsilon_replace for cost in costs]
    numbers = [epsilon for epsilon in known if epsilon is not None]
    most = "for which there is no number"
    if len(numbers) == len(known):
        most = f"up to epsilon {written(max(numbers), formal_if(costs[0].honest))}"
    stand = "image stands" if images == 1 else "images stand"
    return [
        f"{images} {stand} in several records of the hospitals: the guarantee of such an image is that of "
        f"all its copies together, {most}"
    ]


def holders(cost: Mapping[str, Any]) -> str:
    """Who holds how many copies, from a `GroupCost.document`."""
    images, most = cost["images"], "up to " if cost["at_most"] else ""
    held = [
        f"{most}{count} {part} record{'' if count == 1 else 's'} of {name}"
        for name, copies in cost["copies"].items()
        for part, count in copies.items()
        if count
    ]
    return f"{images} image{'' if images == 1 else 's, each'} in {' and '.join(held)}"


def repeated_in(deal: Deal, config: RunConfig) -> list[Repeated]:
    """The images that stand in several records of the hospitals. Test records count if they are released."""
    test = held_identities(deal, "test") if config.shares_encodings else None
    return repeated_records(held_identities(deal, "train"), test)


def group_costs(
    repeated: Sequence[Repeated],
    events: Mapping[str, Sequence[Event]],
    delta: float,
    *,
    updates: bool,
    everything: bool,
) -> list[GroupCost]:
    """The cost of each kind of repeated image at `delta`.

    Args:
        events: by hospital.
        updates, everything: whether one record has a guarantee for updates, and for all that left.
    """
    held = {one: _holdings(one, events) for one in repeated}
    at_most = len(set(held.values())) > MOST_PRICED
    if at_most:
        widest = _widest(repeated)
        held = {widest: _holdings(widest, events)}
    known: dict[tuple[Holding, ...], tuple[float | None, float | None]] = {}
    for holdings in held.values():
        if holdings not in known:
            known[holdings] = (
                _number(group_epsilon(holdings, delta)) if updates else None,
                _number(group_replace_epsilon(holdings, delta)) if everything else None,
            )
    honest = fewest_honest(event for spent in events.values() for event in spent)
    return [GroupCost(one, at_most, *known[holdings], honest) for one, holdings in held.items()]


def planned_costs(
    repeated: Sequence[Repeated],
    plan: Plan,
    config: RunConfig,
    spent: Mapping[str, Sequence[Event]] | None = None,
) -> list[GroupCost]:
    """The cost of repeated images if the run goes as planned, on top of what was `spent`, by hospital."""
    formal = SCOPES[config.dp_scope].formal
    noised = bool(config.encoding_noise_epsilon and config.label_epsilon) or not config.shares_encodings
    events = {}
    for one in plan.hospitals:
        tested = one.upload.events(TEST_PART, 1) if one.upload is not None else ()
        events[one.name] = (*(spent or {}).get(one.name, ()), *one.everything(), *tested)
    return group_costs(
        repeated,
        events,
        config.target_delta,
        updates=formal and config.shares_updates,
        everything=formal and noised and not config.diagnostics,
    )


def _number(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def _holdings(repeated: Repeated, events: Mapping[str, Sequence[Event]]) -> tuple[Holding, ...]:
    """In an order that doesn't depend on names, so that equal hospitals are priced once."""
    held = [Holding(tuple(events[name]), train, test) for name, train, test in repeated.copies]
    return tuple(sorted(held, key=repr))


def _widest(repeated: Sequence[Repeated]) -> Repeated:
    """More copies cost more: no image costs more than one with the most copies in every hospital."""
    most: dict[str, tuple[int, int]] = {}
    for one in repeated:
        for name, train, test in one.copies:
            other = most.get(name, (0, 0))
            most[name] = (max(train, other[0]), max(test, other[1]))
    return Repeated(
        sum(one.images for one in repeated), tuple((name, *copies) for name, copies in most.items())
    )
