"""A hospital's append-only ledger: a chained file (`privacy.chain`), on disk before any noise is drawn.

A line holds the terms of a run (what its rounds and its upload cost), an event that was paid for, or the
events of an older ledger of the same site. A last line that was torn by a crash counts as everything that
the terms in force could have announced. The ledger can only overstate.

Ledgers written before unprotected releases were events hold terms without `shares_updates`. Whatever such
terms let leave without a guarantee counts as released.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError
from fl_ppae.files import write_atomically
from fl_ppae.privacy.chain import NONCE, Chain, append, read_chain
from fl_ppae.privacy.counter import PAYMENT, Counter
from fl_ppae.privacy.events import (
    Declared,
    Event,
    as_dict,
    from_dict,
    unprotected,
)
from fl_ppae.privacy.terms import Terms, UploadTerms


@dataclass(frozen=True)
class Ledger:
    """The contents of a ledger file under the terms of one run: all events ever, oldest first.

    Attributes:
        history: number of events before the run.
        counter: None if it was only read; nothing can then be announced.
        claim: called before each payment.
    """

    path: Path
    terms: Terms
    events: tuple[Event, ...]
    history: int
    chain: Chain
    counter: Counter | None = field(default=None, compare=False)
    claim: Callable[[], None] | None = field(default=None, compare=False)

    def announce(self, *events: Event) -> Ledger:
        """Append `events` and wait until they are on disk and counted; only then may their noise be drawn.

        Hold the ledger's lock.

        Raises:
            UserError: another process paid at the same time. Nothing may be released.
        """
        if not events:
            return self
        assert self.counter is not None, "this ledger was opened for reading"
        if self.claim is not None:
            self.claim()
        chain = append(self.path, self.chain, [_event_line(event) for event in events])
        self.counter.advance(self.chain, chain)
        return replace(self, events=(*self.events, *events), chain=chain)


def open_run(
    path: Path,
    terms: Terms,
    counter: Counter,
    *,
    older: Sequence[Path] = (),
    claim: Callable[[], None] | None = None,
) -> Ledger:
    """The ledger under `terms`: a new ledger, or an existing one, to which a new run adds its terms.

    A torn last line is replaced by all events that it could have been. Hold the ledger's lock.

    Args:
        older: ledgers of the same site whose events belong to this one; those not yet in it are copied.
        claim: as in `Ledger`.

    Raises:
        UserError: the ledger was altered, deleted or restored, or holds other terms for the same run.
    """
    found = read_chain(path) if path.exists() else None
    counted = counter.verify(path, found)
    chain = found or Chain()
    contents = _contents(path, chain)
    agreed = contents.runs.get(terms.run)
    if agreed is not None and agreed.terms != terms:
        raise UserError(
            f"run {terms.run} asks for other noise, sampling or steps than its first round agreed to; "
            "they are fixed for a run"
        )
    lines = [*map(_event_line, contents.torn), *(line for old in older for line in _inherited(old, contents))]
    if lines or contents.terms != terms:  # terms come last: a torn line is counted under those before it
        lines.append({"kind": _TERMS, **asdict(terms)})
    if found is None or found.torn:
        chain, added = chain.extended(lines)
        write_atomically(path, (path.read_bytes()[: found.size] if found is not None else b"") + added)
    elif lines:
        chain = append(path, chain, lines)
    if counted < len(chain.heads):
        counter.advance(found or Chain(), chain)
    contents = _contents(path, chain)
    return Ledger(path, terms, contents.events, contents.runs[terms.run].history, chain, counter, claim)


def read_ledger(path: Path) -> Ledger:
    """Read and verify a ledger; a torn last line counts as all events that it could have been.

    Raises:
        UserError: the ledger is missing or altered. It is never restarted at zero.
    """
    try:
        chain = read_chain(path)
    except FileNotFoundError:
        raise UserError(
            f"the ledger {path} is missing although its hospital has trained; restore it from a backup"
        ) from None
    contents = _contents(path, chain)
    if contents.terms is None:
        raise UserError(f"the ledger {path} holds no run's terms")
    return Ledger(
        path,
        contents.terms,
        (*contents.events, *contents.torn),
        contents.runs[contents.terms.run].history,
        chain,
    )


def verify(path: Path, counter: Counter, older: Sequence[Path] = ()) -> tuple[Event, ...]:
    """All events of a ledger that agrees with its counter; writes nothing. `older`: as in `open_run`.

    Raises:
        UserError: it was altered, deleted or restored, or an older ledger can't be read.
    """
    found = read_chain(path) if path.exists() else None
    counter.verify(path, found)
    contents = _contents(path, found or Chain())
    for old in older:
        read_ledger(old)
    return (*contents.events, *contents.torn)


def declare(path: Path, counter: Counter, cost: Declared) -> None:
    """Charge `cost` for events that a ledger has lost, and count the ledger as it is from then on.

    What can still be read stays in it; a file that can't be is kept beside it. Hold the ledger's lock.
    """
    try:
        chain = read_chain(path)
        torn = _contents(path, chain).torn
        kept = path.read_bytes()[: chain.size]
    except FileNotFoundError:
        chain, torn, kept = Chain(), (), b""
    except UserError:
        set_aside(path)
        chain, torn, kept = Chain(), (), b""
    chain, added = chain.extended([_event_line(event) for event in (*torn, cost)])
    write_atomically(path, kept + added)
    counter.reset(chain)


def set_aside(path: Path) -> None:
    """Rename an unreadable ledger, so that it is no longer read but not gone."""
    path.rename(path.with_name(f"{path.name}.unreadable-{secrets.token_hex(4)}"))


def agreed_terms(path: Path, run: str) -> Terms | None:
    """The terms already agreed for `run`; None if there are none.

    Raises:
        UserError: the ledger is altered.
    """
    if not path.exists():
        return None
    agreed = _contents(path, read_chain(path)).runs.get(run)
    return agreed.terms if agreed is not None else None


_TERMS, _INHERITED = "terms", "inherited"


@dataclass(frozen=True)
class _Run:
    terms: Terms
    history: int


@dataclass(frozen=True)
class _Contents:
    """What the lines of a ledger say.

    Attributes:
        terms: those in force at the end; None if there are none.
        torn: all events that an incomplete last line could have been.
        inherited: number of events copied from each older ledger, by its folder's name.
    """

    terms: Terms | None
    events: tuple[Event, ...]
    torn: tuple[Event, ...]
    runs: Mapping[str, _Run]
    inherited: Mapping[str, int]


def _contents(path: Path, chain: Chain) -> _Contents:
    terms: Terms | None = None
    events: list[Event] = []
    runs: dict[str, _Run] = {}
    inherited: dict[str, int] = {}
    for number, line in enumerate(chain.bodies, start=1):
        body = {key: value for key, value in line.items() if key != NONCE}
        try:
            kind = body.pop("kind")
            if kind == _TERMS:
                terms = _terms(body)
                runs.setdefault(terms.run, _Run(terms, len(events)))
                events += () if "shares_updates" in line else unprotected(terms.any_events(1))
            elif kind == _INHERITED:
                events += [from_dict(event) for event in body["events"]]
                inherited[str(body["folder"])] = int(body["count"])
            else:
                events.append(from_dict(body))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"line {number} of the ledger {path} is not of this version: {error}") from None
    torn: tuple[Event, ...] = ()
    if chain.torn or (not chain.heads and path.exists()):
        if terms is None:
            raise UserError(f"the ledger {path} has no first line; restore it from a backup")
        torn = terms.any_events(events[-1].round + 1 if events else 1)
    return _Contents(terms, tuple(events), torn, runs, inherited)


def _inherited(old: Path, contents: _Contents) -> list[dict[str, Any]]:
    """A line with the events of an older ledger that aren't in `contents` yet; empty if all are."""
    folder = old.parent.name
    events = read_ledger(old).events
    new = events[contents.inherited.get(folder, 0) :]
    if not new:
        return []
    copied = [as_dict(event) for event in new]
    return [{"kind": _INHERITED, "folder": folder, "count": len(events), "events": copied}]


def _terms(body: dict[str, Any]) -> Terms:
    upload = body.pop("upload")
    return Terms(**body, upload=UploadTerms(**upload) if upload is not None else None)


def _event_line(event: Event) -> dict[str, Any]:
    return {"kind": PAYMENT, **as_dict(event)}
