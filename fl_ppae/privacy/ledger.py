"""A hospital's append-only ledger: a file of checksummed lines, on disk before any noise is drawn.

A line is either the terms of a run (what one of its rounds costs) or an event (a round was paid for).
Each line carries the SHA-256 of itself chained to the line before, so that a line that was changed,
dropped from the middle or reordered is noticed. A last line without its newline was torn by a crash:
one round under the terms in force then counts as spent. The ledger can only over-state.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError
from fl_ppae.files import write_atomically
from fl_ppae.privacy.events import Event


@dataclass(frozen=True)
class Terms:
    """What a hospital agrees to before round 1 of a run; no message changes it afterwards.

    Attributes:
        run: the run's identity.
        noise_multiplier: None for dp-scope none.
        steps: noised sums a round.
        target_epsilon: the budget, counted at `delta` over the ledger's whole history.
    """

    run: str
    scope: str
    records: int
    noise_multiplier: float | None
    sample_rate: float
    steps: int
    max_grad_norm: float
    target_epsilon: float
    delta: float

    def event(self, server_round: int) -> Event | None:
        """What one round costs; None without DP."""
        if self.noise_multiplier is None:
            return None
        return Event(self.noise_multiplier, self.sample_rate, self.steps, server_round)


@dataclass(frozen=True)
class Ledger:
    """What stands in a ledger file: the terms in force and every event ever, oldest first.

    `history` counts the events that were there before these terms.
    """

    path: Path
    terms: Terms
    events: tuple[Event, ...] = ()
    history: int = 0

    def announce(self, event: Event) -> Ledger:
        """Append `event` and wait until it is on the disk; only then may noise be drawn for it."""
        _append(self.path, _EVENT, event.as_dict())
        return replace(self, events=(*self.events, event))


def open_run(path: Path, terms: Terms) -> Ledger:
    """The ledger under `terms`: started with them, or, for a new run, continued with them.

    Raises:
        UserError: the ledger is altered, or holds other terms for the same run.
    """
    if not path.exists():
        # Whole or not at all, so that every line after it has terms to be counted under.
        write_atomically(path, _line(_TERMS, asdict(terms), previous=""))
        return Ledger(path, terms)
    ledger = read_ledger(path)
    if ledger.terms == terms:
        return ledger
    if ledger.terms.run == terms.run:
        raise UserError(
            f"run {terms.run} asks for other noise, sampling or steps than its first round agreed to; "
            "they are fixed for a run"
        )
    _append(path, _TERMS, asdict(terms))
    return Ledger(path, terms, ledger.events, history=len(ledger.events))


def read_ledger(path: Path) -> Ledger:
    """Read and verify a ledger; a torn last line is replaced by the event it stands for.

    Raises:
        UserError: missing or altered. It is never restarted at zero.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"the ledger {path} is missing although its hospital has trained; restore it from a backup"
        ) from None
    complete, _, torn = content.rpartition(b"\n")
    terms: Terms | None = None
    events: list[Event] = []
    history = 0
    previous = ""
    for number, line in enumerate(complete.splitlines(), start=1):
        where = f"line {number} of the ledger {path}"
        body, checksum = _verified(line, previous, where)
        previous = checksum
        try:
            if body.pop("kind") == _TERMS:
                terms, history = Terms(**body), len(events)
            else:
                events.append(Event.from_dict(body))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where} is not of this version: {error}") from None
    if terms is None:
        raise UserError(f"the ledger {path} has no first line; restore it from a backup")
    if torn:
        announced = terms.event(events[-1].round + 1 if events else 1)
        content = complete + b"\n"
        if announced is not None:
            events.append(announced)
            content += _line(_EVENT, announced.as_dict(), previous)
        write_atomically(path, content)
    return Ledger(path, terms, tuple(events), history)


_TERMS, _EVENT = "terms", "event"


def _append(path: Path, kind: str, body: dict[str, Any]) -> None:
    last = json.loads(path.read_bytes().splitlines()[-1])
    with path.open("ab") as file:
        file.write(_line(kind, body, previous=last["sha256"]))
        file.flush()
        os.fsync(file.fileno())


def _line(kind: str, body: dict[str, Any], previous: str) -> bytes:
    whole = {"kind": kind, **body}
    return (json.dumps({**whole, "sha256": _checksum(whole, previous)}) + "\n").encode()


def _checksum(body: dict[str, Any], previous: str) -> str:
    canonical = json.dumps(body, sort_keys=True)
    return hashlib.sha256((previous + canonical).encode()).hexdigest()


def _verified(line: bytes, previous: str, where: str) -> tuple[dict[str, Any], str]:
    try:
        body = json.loads(line)
        found = body.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{where} is damaged; restore the ledger from a backup") from None
    if found != _checksum(body, previous):
        raise UserError(f"{where} was altered: its checksum differs; restore the ledger from a backup")
    return body, found
