"""A hospital's append-only ledger: a file of checksummed lines, on disk before any noise is drawn.

A line holds either the terms of a run (what its rounds and its upload cost) or an event that was paid for.
Each line carries a SHA-256 chained to the line before, so that changed, dropped or reordered lines are
noticed. A last line without its newline was torn by a crash: everything that the terms in force could have
announced then counts as spent. The ledger can only overstate.

Ledgers written before unprotected releases were events hold terms without `shares_updates`. Whatever such
terms let leave without a guarantee counts as released.
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
from fl_ppae.privacy.events import (
    DIAGNOSTICS,
    ENCODINGS,
    LABELS,
    PARTS,
    TRAIN_PART,
    UPDATES,
    Event,
    Gaussian,
    PoissonGaussian,
    RandomisedResponse,
    Unprotected,
    as_dict,
    from_dict,
    unprotected,
)
from fl_ppae.privacy.scopes import SCOPES


@dataclass(frozen=True)
class UploadTerms:
    """What a hospital's single upload of encodings and labels costs.

    Attributes:
        encoding_epsilon: budget for encodings, at the run's delta, over the ledger's whole history.
        encoding_noise_multiplier: None if encodings are shared plain.
        label_epsilon: epsilon of randomised response, and its budget; 0 if labels are shared in the clear.
        classes: number of possible labels.
    """

    encoding_epsilon: float
    encoding_noise_multiplier: float | None
    label_epsilon: float
    classes: int

    def events(self, part: str, server_round: int) -> tuple[Event, ...]:
        """What the noise on `part` costs; labels are released for the train part only."""
        costs: list[Event] = []
        if self.encoding_noise_multiplier is not None:
            costs.append(Gaussian(self.encoding_noise_multiplier, part, server_round))
        if self.label_epsilon and part == TRAIN_PART:
            costs.append(RandomisedResponse(self.label_epsilon, self.classes, server_round))
        return tuple(costs)


@dataclass(frozen=True)
class Terms:
    """What a hospital agrees to before round 1 of a run; no later message changes it.

    Attributes:
        run: the run's identity.
        noise_multiplier: None for dp-scope none.
        steps: noised sums per round.
        target_epsilon: budget for updates, at `delta`, over the ledger's whole history.
        upload: None if the run shares no encodings.
        shares_updates: whether encoder updates leave the hospital.
        diagnostics: whether un-noised statistics of the training do.
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
    upload: UploadTerms | None = None
    shares_updates: bool = True
    diagnostics: bool = False

    def event(self, server_round: int) -> PoissonGaussian | None:
        """The noised sums of one round; None without DP."""
        if self.noise_multiplier is None:
            return None
        return PoissonGaussian(self.noise_multiplier, self.sample_rate, self.steps, server_round)

    def round_events(self, server_round: int) -> tuple[Event, ...]:
        """Everything that one round releases: noised sums, updates without a guarantee, diagnostics."""
        noised = self.event(server_round)
        updates = self.shares_updates and not SCOPES[self.scope].formal
        return (
            *((noised,) if noised is not None else ()),
            *((self._unprotected(UPDATES, TRAIN_PART, server_round),) if updates else ()),
            *self.diagnostic_events(server_round),
        )

    def diagnostic_events(self, server_round: int) -> tuple[Unprotected, ...]:
        """The diagnostics of one round, from training and from evaluation; empty if the run sends none."""
        return (self._unprotected(DIAGNOSTICS, TRAIN_PART, server_round),) if self.diagnostics else ()

    def upload_events(self, part: str, server_round: int) -> tuple[Event, ...]:
        """Everything that an upload of `part` releases; empty if the run shares no encodings.

        An encoder that was trained without a guarantee shows its train records through the encodings of
        either part, noised or not.
        """
        if self.upload is None:
            return ()
        plain = []
        if not SCOPES[self.scope].formal:
            plain.append((ENCODINGS, TRAIN_PART))
        if self.upload.encoding_noise_multiplier is None:
            plain.append((ENCODINGS, part))
        if part == TRAIN_PART and not self.upload.label_epsilon:
            plain.append((LABELS, part))
        return (
            *self.upload.events(part, server_round),
            *(self._unprotected(artefact, whose, server_round) for artefact, whose in dict.fromkeys(plain)),
        )

    def any_events(self, server_round: int) -> tuple[Event, ...]:
        """Everything that could have been announced at this point."""
        uploads = [event for part in PARTS for event in self.upload_events(part, server_round)]
        return (*self.round_events(server_round), *uploads)

    @property
    def formal(self) -> bool:
        """True if everything that the run may release has a guarantee."""
        return not unprotected(self.any_events(1))

    def _unprotected(self, artefact: str, part: str, server_round: int) -> Unprotected:
        return Unprotected(artefact, self.scope, part, self.run, server_round)


@dataclass(frozen=True)
class Ledger:
    """The contents of a ledger file: the terms in force and all events ever, oldest first.

    `history` is the number of events before these terms.
    """

    path: Path
    terms: Terms
    events: tuple[Event, ...] = ()
    history: int = 0

    def announce(self, *events: Event) -> Ledger:
        """Append `events` and wait until they are on disk; only then may their noise be drawn."""
        for event in events:
            _append(self.path, _EVENT, as_dict(event))
        return replace(self, events=(*self.events, *events))


def open_run(path: Path, terms: Terms) -> Ledger:
    """The ledger under `terms`: a new ledger, or an existing one, to which a new run adds its terms.

    Raises:
        UserError: the ledger was altered, or holds other terms for the same run.
    """
    if not path.exists():
        # Written atomically, so that every later line has terms to be counted under.
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
    """Read and verify a ledger; a torn last line is replaced by all events that it could have been.

    Raises:
        UserError: the ledger is missing or altered. It is never restarted at zero.
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
                known = "shares_updates" in body
                terms, history = _terms(body), len(events)
                events += () if known else unprotected(terms.any_events(1))
            else:
                events.append(from_dict(body))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where} is not of this version: {error}") from None
    if terms is None:
        raise UserError(f"the ledger {path} has no first line; restore it from a backup")
    if torn:
        content = complete + b"\n"
        for announced in terms.any_events(events[-1].round + 1 if events else 1):
            events.append(announced)
            line = _line(_EVENT, as_dict(announced), previous)
            previous = json.loads(line)["sha256"]
            content += line
        write_atomically(path, content)
    return Ledger(path, terms, tuple(events), history)


_TERMS, _EVENT = "terms", "event"


def _terms(body: dict[str, Any]) -> Terms:
    upload = body.pop("upload")
    return Terms(**body, upload=UploadTerms(**upload) if upload is not None else None)


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
