"""The server's book: what each hospital was charged, whether its claim follows from its events.

The server charges a round's planned cost when it *sends* the train message, and never lowers it but
for a hospital that declined: such a reply carried nothing. Epsilon is recomputed here from the events;
of the server's charges and the hospital's own events the dearer counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fl_ppae.messages import DECLINED, Claim
from fl_ppae.planning import HospitalPlan
from fl_ppae.privacy.accounting import Epsilon, epsilon
from fl_ppae.privacy.events import Event

ACTIVE, STOPPED, EXCLUDED = "active", "stopped", "excluded"


@dataclass
class Account:
    """One hospital in the book.

    Attributes:
        history: events its records had paid before this run.
        charges: this run's rounds as the server charged them.
        claimed: the events of its last accepted claim.
        status: active, stopped (it declined) or excluded (its claim did not hold).
    """

    plan: HospitalPlan
    history: tuple[Event, ...] = ()
    charges: list[Event] = field(default_factory=list)
    claimed: tuple[Event, ...] = ()
    status: str = ACTIVE
    reason: str = ""

    def dearer(self) -> tuple[tuple[Event, ...], Epsilon]:
        """The events that cost more, charged or claimed, and their epsilon."""
        charged = (*self.history, *self.charges)
        candidates = [(charged, epsilon(charged, self.plan.delta))]
        if self.claimed and len(self.claimed) != len(charged):
            candidates.append((self.claimed, epsilon(self.claimed, self.plan.delta)))
        return max(candidates, key=lambda candidate: candidate[1].spent)


@dataclass(frozen=True)
class Book:
    """All hospitals' accounts by name, in the order of their index."""

    accounts: Mapping[str, Account]

    def active(self) -> list[str]:
        """Hospitals that may be asked to train."""
        return [name for name, account in self.accounts.items() if account.status == ACTIVE]

    def charge(self, name: str, server_round: int) -> None:
        """Note the cost of a round that is about to be asked for."""
        event = self.accounts[name].plan.event(server_round)
        if event is not None:
            self.accounts[name].charges.append(event)

    def settle(self, name: str, claim: Claim, server_round: int) -> None:
        """Take a hospital's claim for `server_round`: accept it, stop or exclude the hospital."""
        account = self.accounts[name]
        if problem := _problem(account, claim, server_round):
            self.exclude(name, problem)
            return
        account.claimed = claim.events
        if claim.status == DECLINED:
            account.charges = [event for event in account.charges if event.round != server_round]
            account.status, account.reason = STOPPED, claim.reason

    def exclude(self, name: str, reason: str) -> None:
        """Neither ask `name` any more nor use what it sent."""
        self.accounts[name].status, self.accounts[name].reason = EXCLUDED, reason

    def spent(self) -> dict[str, float | None]:
        """Epsilon by hospital, the larger of both accountants and both event lists; None without DP."""
        return {
            name: account.dearer()[1].spent if account.plan.noise_multiplier is not None else None
            for name, account in self.accounts.items()
        }


def _problem(account: Account, claim: Claim, server_round: int) -> str:
    """Why a claim does not follow from its events or from the plan; empty if it does."""
    plan = account.plan
    if plan.noise_multiplier is None:
        return "it claims events in a run without DP" if claim.events else ""
    before, now = claim.events[: len(account.history)], claim.events[len(account.history) :]
    if before != account.history:
        return "its events no longer hold what it enrolled with"
    for event in now:
        if event != plan.event(event.round):
            return f"its event for round {event.round} differs from the plan it enrolled with"
    if claim.status != DECLINED and server_round not in {event.round for event in now}:
        return f"it trained in round {server_round} without an event for it"
    recomputed = epsilon(claim.events, plan.delta).spent
    if abs(claim.epsilon - recomputed) > max(0.02, 0.01 * recomputed):
        return f"it claims epsilon {claim.epsilon:.3f}, its events cost {recomputed:.3f}"
    return ""
