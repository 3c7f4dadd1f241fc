"""The server ledger: what each hospital was charged, and whether its claim follows from its events.

The server charges a round when it *sends* the train message, and an upload when it first asks for it.
Only a hospital that declined gets the charge back, because its reply carried nothing. The server computes
epsilon itself, from its own charges or from the events that the hospital claims, whichever cost more. A claim
that does not hold is refuted: the hospital is excluded, and no epsilon of it is a guarantee any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from fl_ppae.config import MIN_NOISE_MULTIPLIER
from fl_ppae.messages import DECLINED, TRAINED, Claim, reason_text
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import (
    PARTS,
    Declared,
    Event,
    Gaussian,
    JointGaussian,
    PoissonGaussian,
    RandomisedResponse,
    Unprotected,
    Update,
    by_kind,
    trained,
    unprotected,
    updates,
)
from fl_ppae.privacy.figures import REFUTED, Figure
from fl_ppae.privacy.guarantees import Spending, spending_of, updates_figure
from fl_ppae.privacy.terms import Terms
from strategies.chains import SeenChain

ACTIVE, STOPPED, EXCLUDED = "active", "stopped", "excluded"
_MOST_DIVERGENCE, _MOST_STEPS = 200.0, 10**9  # of refuted events whose epsilon is computed


@dataclass
class Account:
    """One hospital in the server ledger.

    Attributes:
        terms: what the server expects the hospital to train under.
        history: events that its records paid before this run.
        charges: the server's charges for rounds and uploads of this run.
        claimed: the events of its last accepted claim.
        status: active, stopped (it declined) or excluded (its claim or reply did not hold).
        refuted: why its claim did not hold; empty while all its claims do.
        refuted_events, refuted_epsilon: of that claim.
        seen: the hospital's ledger as it was last seen; None leaves it unchecked.
    """

    terms: Terms
    history: tuple[Event, ...] = ()
    charges: list[Event] = field(default_factory=list)
    claimed: tuple[Event, ...] = ()
    status: str = ACTIVE
    reason: str = ""
    refuted: str = ""
    refuted_events: tuple[Event, ...] = ()
    refuted_epsilon: float = 0.0
    seen: SeenChain | None = None

    def counted_events(self) -> tuple[Event, ...]:
        """The events that count: charged, claimed or refuted, whichever cost more."""
        lists = [(*self.history, *self.charges), self.claimed]
        if self._refuted_bounded:
            lists.append(self.refuted_events)
        return max(lists, key=self._cost)

    def figure(self) -> Figure:
        """The epsilon of its updates: the larger of both accountants and all lists of events.

        After a refuted claim also of the claim's own epsilon; no number if that or its events are unbounded.
        """
        found = updates_figure(self.counted_events(), self.terms)
        if not self.refuted:
            return found
        claims = [self.refuted_epsilon, found.epsilon or 0.0]
        bounded = found.epsilon is not None and math.isfinite(max(claims)) and self._refuted_bounded
        return Figure(max(claims) if bounded else None, REFUTED)

    def rounds_paid_twice(self) -> int:
        """How many rounds of this run its records paid for more than once, each time with fresh noise."""
        training, joint, *_others = by_kind(self.counted_events()[len(self.history) :])
        paid = Counter([event.round for event in training] + [event.round for event in joint])
        return sum(times > 1 for times in paid.values())

    def spending(self) -> Spending:
        """What its records have spent, as far as the server knows."""
        events = self.counted_events()
        found = spending_of(events, events[len(self.history) :], self.terms)
        return replace(found, updates=self.figure(), refuted=self.refuted)

    def broken(self, chain: str) -> str:
        """Why its ledger can't be what was last seen; empty if it can, and it is then remembered."""
        return self.seen.problem(chain) if self.seen is not None else ""

    def _cost(self, events: tuple[Event, ...]) -> tuple[int, float, int]:
        return len(unprotected(events)), epsilon(updates(events), self.terms.delta).spent, len(events)

    @property
    def _refuted_bounded(self) -> bool:
        """False if those events cost too much for the accountants, whose memory grows with epsilon."""
        return _divergence(updates(self.refuted_events)) <= _MOST_DIVERGENCE


@dataclass(frozen=True)
class ServerLedger:
    """All hospitals' accounts by name, in the order of their index."""

    accounts: Mapping[str, Account]

    def active(self) -> list[str]:
        """Hospitals that may be asked to train."""
        return [name for name, account in self.accounts.items() if account.status == ACTIVE]

    def charge(self, name: str, server_round: int) -> None:
        """Charge a round; call it before asking for the round."""
        account = self.accounts[name]
        account.charges += account.terms.round_events(server_round)

    def charge_diagnostics(self, name: str, server_round: int) -> None:
        """Charge the diagnostics of an evaluation, unless the round's training has paid for them."""
        account = self.accounts[name]
        costs = account.terms.diagnostic_events(server_round)
        account.charges += [cost for cost in costs if cost not in account.charges]

    def charge_upload(self, name: str, part: str, server_round: int) -> None:
        """Charge encodings of `part`; call it before asking for them."""
        account = self.accounts[name]
        account.charges += account.terms.upload_events(part, server_round)

    def settle_upload(
        self,
        name: str,
        events: tuple[Event, ...],
        chain: str,
        part: str,
        server_round: int,
        *,
        declined: bool,
    ) -> str:
        """Check an upload's events. If they don't hold, exclude the hospital and say why; else empty."""
        account = self.accounts[name]
        costs = account.terms.upload_events(part, server_round)
        problem = _unfounded(account, events)
        if not problem and (chain or not declined):  # it may decline without opening its ledger
            problem = account.broken(chain)
        if not (problem or declined) and any(cost not in events for cost in costs):
            problem = f"it uploaded encodings of its {part} part without an event for them"
        if problem:
            self.refute(name, problem, events)
            return problem
        if declined:
            _refund(account, costs)
        account.claimed = events
        return ""

    def settle(self, name: str, claim: Claim, server_round: int) -> None:
        """Check a hospital's claim for `server_round`: accept it, or stop or exclude the hospital."""
        account = self.accounts[name]
        if problem := _problem(account, claim, server_round) or account.broken(claim.chain):
            self.refute(name, problem, claim.events, claim.epsilon)
            return
        account.claimed = claim.events
        if claim.status != TRAINED:
            _refund(account, account.terms.round_events(server_round))
        if claim.status == DECLINED:
            account.status, account.reason = STOPPED, claim.reason

    def settle_enrolment(self, name: str, events: tuple[Event, ...], chain: str) -> str:
        """Check what a hospital has paid when the run begins or goes on; if it does not hold, exclude it."""
        account = self.accounts[name]
        if problem := _unfounded(account, events) or account.broken(chain):
            self.refute(name, problem, events)
            return problem
        account.claimed = events
        return ""

    def has_paid(self, server_round: int) -> bool:
        """Whether some hospital's last claim has an event of this run for `server_round`."""
        return any(
            cost in account.claimed[len(account.history) :]
            for account in self.accounts.values()
            for cost in account.terms.round_events(server_round)
        )

    def exclude(self, name: str, reason: str) -> None:
        """Never ask `name` again, and don't use its reply."""
        self.accounts[name].status, self.accounts[name].reason = EXCLUDED, reason_text(reason)

    def refute(self, name: str, reason: str, events: tuple[Event, ...] = (), claimed: float = 0.0) -> None:
        """Exclude `name` because its claim of `events` and epsilon `claimed` does not hold."""
        self.exclude(name, reason)
        account = self.accounts[name]
        account.refuted, account.refuted_events, account.refuted_epsilon = account.reason, events, claimed

    def figures(self) -> dict[str, Figure]:
        """The epsilon of the encoder updates by hospital."""
        return {name: account.figure() for name, account in self.accounts.items()}

    def refuted(self) -> dict[str, str]:
        """Why claims were refuted, by hospital."""
        return {name: account.refuted for name, account in self.accounts.items() if account.refuted}


def _problem(account: Account, claim: Claim, server_round: int) -> str:
    """Why a claim does not follow from its events or from the plan; empty if it does."""
    terms = account.terms
    if unfounded := _unfounded(account, claim.events):
        return unfounded
    now = claim.events[len(account.history) :]
    if claim.status == TRAINED and any(cost not in now for cost in terms.round_events(server_round)):
        return f"it trained in round {server_round} without an event for it"
    if terms.noise_multiplier is None:
        return ""
    recomputed = epsilon(updates(claim.events), terms.delta).spent
    if abs(claim.epsilon - recomputed) > max(0.02, 0.01 * recomputed):
        return f"it claims epsilon {claim.epsilon:.3f}, its events cost {recomputed:.3f}"
    return ""


def _unfounded(account: Account, events: tuple[Event, ...]) -> str:
    """Why these events can't be this hospital's; empty if they can."""
    before, now = events[: len(account.history)], events[len(account.history) :]
    if before != account.history:
        return "its events no longer contain those it enrolled with"
    for event in now:
        if event not in _planned(account.terms, event):
            return (
                f"its {event.mechanism} event for round {event.round} differs from the plan it enrolled with"
            )
    return ""


def _planned(terms: Terms, event: Event) -> tuple[Event, ...]:
    """The events of `event`'s kind and round that the terms provide for, and perhaps others."""
    match event:
        case PoissonGaussian() | JointGaussian():
            return terms.round_events(event.round)
        case Gaussian() | RandomisedResponse():
            return tuple(cost for part in PARTS for cost in terms.upload_events(part, event.round))
        case Unprotected():
            return terms.any_events(event.round)
        case Declared():
            return ()
        case _:
            assert_never(event)


def _refund(account: Account, costs: Iterable[Event]) -> None:
    """Take one charge for each of `costs` back; the same artefact may have been charged twice."""
    for cost in costs:
        account.charges.remove(cost)


def _divergence(events: Iterable[Update]) -> float:
    """The Renyi divergence of order 2 of these updates together (arXiv:1908.10530), quick to compute.

    Declared costs, which need no accountant, are left out. Infinite below the noise, and above the steps,
    that any run may have.
    """
    total = 0.0
    for event in trained(events):
        if event.noise_multiplier < MIN_NOISE_MULTIPLIER or event.steps > _MOST_STEPS:
            return math.inf
        total += event.steps * math.log1p(event.sample_rate**2 * math.expm1(event.noise_multiplier**-2))
    return total
