"""The server ledger: what each hospital was charged, and whether its claim follows from its events.

The server charges a round when it *sends* the train message, and an upload when it first asks for it.
Only a hospital that declined gets the charge back, because its reply carried nothing. The server computes
epsilon itself, from its own charges or from the events that the hospital claims, whichever cost more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fl_ppae.messages import DECLINED, Claim
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import PARTS, Event, PoissonGaussian, updates
from fl_ppae.privacy.plan import HospitalPlan

ACTIVE, STOPPED, EXCLUDED = "active", "stopped", "excluded"


@dataclass
class Account:
    """One hospital in the server ledger.

    Attributes:
        history: events that its records paid before this run.
        charges: the server's charges for rounds and uploads of this run.
        claimed: the events of its last accepted claim.
        status: active, stopped (it declined) or excluded (its claim did not hold).
    """

    plan: HospitalPlan
    history: tuple[Event, ...] = ()
    charges: list[Event] = field(default_factory=list)
    claimed: tuple[Event, ...] = ()
    status: str = ACTIVE
    reason: str = ""

    def counted_events(self) -> tuple[Event, ...]:
        """The events that count: charged or claimed, whichever cost more."""
        charged = (*self.history, *self.charges)
        if not self.claimed or len(self.claimed) == len(charged):
            return charged
        both = (charged, self.claimed)
        return max(both, key=lambda events: (epsilon(updates(events), self.plan.delta).spent, len(events)))


@dataclass(frozen=True)
class ServerLedger:
    """All hospitals' accounts by name, in the order of their index."""

    accounts: Mapping[str, Account]

    def active(self) -> list[str]:
        """Hospitals that may be asked to train."""
        return [name for name, account in self.accounts.items() if account.status == ACTIVE]

    def charge(self, name: str, server_round: int) -> None:
        """Charge a round; call it before asking for the round."""
        event = self.accounts[name].plan.event(server_round)
        if event is not None:
            self.accounts[name].charges.append(event)

    def charge_upload(self, name: str, part: str, server_round: int) -> None:
        """Charge encodings of `part`; call it before asking for them."""
        account = self.accounts[name]
        account.charges += account.plan.upload_events(part, server_round)

    def settle_upload(
        self, name: str, events: tuple[Event, ...], part: str, server_round: int, *, declined: bool
    ) -> str:
        """Check an upload's events. If they don't hold, exclude the hospital and say why; else empty."""
        account = self.accounts[name]
        costs = account.plan.upload_events(part, server_round)
        problem = _unfounded(account, events)
        if not (problem or declined) and any(cost not in events for cost in costs):
            problem = f"it uploaded encodings of its {part} part without an event for them"
        if problem:
            self.exclude(name, problem)
            return problem
        if declined:
            account.charges = [event for event in account.charges if event not in costs]
        account.claimed = events
        return ""

    def settle(self, name: str, claim: Claim, server_round: int) -> None:
        """Check a hospital's claim for `server_round`: accept it, or stop or exclude the hospital."""
        account = self.accounts[name]
        if problem := _problem(account, claim, server_round):
            self.exclude(name, problem)
            return
        account.claimed = claim.events
        if claim.status == DECLINED:
            asked = account.plan.event(server_round)
            account.charges = [event for event in account.charges if event != asked]
            account.status, account.reason = STOPPED, claim.reason

    def exclude(self, name: str, reason: str) -> None:
        """Never ask `name` again, and don't use its reply."""
        self.accounts[name].status, self.accounts[name].reason = EXCLUDED, reason

    def spent(self) -> dict[str, float | None]:
        """Epsilon by hospital: the largest over both accountants and event lists; None without DP."""
        return {
            name: epsilon(updates(account.counted_events()), account.plan.delta).spent
            if account.plan.noise_multiplier is not None
            else None
            for name, account in self.accounts.items()
        }


def _problem(account: Account, claim: Claim, server_round: int) -> str:
    """Why a claim does not follow from its events or from the plan; empty if it does."""
    plan = account.plan
    if unfounded := _unfounded(account, claim.events):
        return unfounded
    if plan.noise_multiplier is None:
        return ""
    now = claim.events[len(account.history) :]
    if claim.status != DECLINED and plan.event(server_round) not in now:
        return f"it trained in round {server_round} without an event for it"
    recomputed = epsilon(updates(claim.events), plan.delta).spent
    if abs(claim.epsilon - recomputed) > max(0.02, 0.01 * recomputed):
        return f"it claims epsilon {claim.epsilon:.3f}, its events cost {recomputed:.3f}"
    return ""


def _unfounded(account: Account, events: tuple[Event, ...]) -> str:
    """Why these events can't be this hospital's; empty if they can."""
    before, now = events[: len(account.history)], events[len(account.history) :]
    if before != account.history:
        return "its events no longer contain those it enrolled with"
    for event in now:
        if isinstance(event, PoissonGaussian):
            planned = event == account.plan.event(event.round)
        else:
            planned = any(event in account.plan.upload_events(part, event.round) for part in PARTS)
        if not planned:
            return (
                f"its {event.mechanism} event for round {event.round} differs from the plan it enrolled with"
            )
    return ""
