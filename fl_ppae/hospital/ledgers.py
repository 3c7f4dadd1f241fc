"""The ledgers of a site: the main one, which every run inherits, and further ones that an operator opened.

A site is a state directory. Beside it, in a directory of its own, a site keeps what must not be lost together
with a ledger: each ledger's counter (`privacy.counter`), its records (`hospital.record_sets`) and the key.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fl_ppae.data.cache import Dataset
from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.files import home, read_json, write_json
from fl_ppae.hospital.record_sets import RecordSet
from fl_ppae.hospital.state import HospitalState
from fl_ppae.paths import FOLDER, MISSING, kind_of, path_of
from fl_ppae.privacy.events import Declared

MAIN = "main"


@dataclass(frozen=True)
class Site:
    """One hospital's directories. `guard` is outside `state`."""

    state: Path
    guard: Path

    @property
    def ledgers(self) -> tuple[str, ...]:
        """The names of all ledgers, the main one first."""
        labels = [read_json(path) for path in self._folders.glob(f"*/{_LABEL}")]
        opened = {str(label["name"]) for label in labels if label["state"] == str(self.state)}
        return (MAIN, *sorted(opened - {MAIN}))

    def records(self, ledger: str) -> RecordSet:
        """The records of `ledger`."""
        return RecordSet(self._folder(ledger), self.guard / "key")

    def state_of(self, ledger: str, dataset: Dataset | None = None) -> HospitalState:
        """The state directory of `ledger`; with `dataset`, for work with those records.

        Raises:
            UserError: no such ledger was opened, or some of the records belong to another.
        """
        if ledger not in self.ledgers:
            raise UserError(
                f"this site has no ledger {ledger!r}{did_you_mean(ledger, self.ledgers)}; "
                "an operator opens one with `fl-ppae ledger open`"
            )
        self._label(ledger)
        claim = None
        if dataset is not None:
            records = self.records(ledger)
            records.check(dataset)
            claim = partial(records.claim, dataset)
        directory = self.state if ledger == MAIN else self.state / "ledgers" / ledger
        return HospitalState(directory, counter_path=self._folder(ledger) / "counter.json", claim=claim)

    def open(self, ledger: str, dataset: Dataset) -> None:
        """Open a further ledger for the records of `dataset`.

        Raises:
            UserError: the name is not usable, or some of the records belong to another ledger.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", ledger):
            raise UserError(f"{ledger!r} can't name a ledger; use lower-case letters, digits and dashes")
        if ledger in self.ledgers:
            raise UserError(f"this site has a ledger {ledger!r} already")
        self.records(ledger).claim(dataset)
        self._label(ledger)

    def accept_loss(self, ledger: str, cost: Declared) -> None:
        """Go on with a ledger that has lost events, at `cost`, for which the operator takes responsibility.

        Raises:
            UserError: no such ledger, or it has lost nothing.
        """
        state = self.state_of(ledger)
        with state.lock():
            try:
                state.verify()
            except UserError:
                state.declare(cost)
                return
        raise UserError(f"the ledger {state.ledger_path} is in order: there is no loss to accept")

    @property
    def _folders(self) -> Path:
        return self.guard / "ledgers"

    def _folder(self, ledger: str) -> Path:
        """Of one ledger in one state directory: a copy of the directory elsewhere is another."""
        digest = hashlib.sha256(str(self.state).encode()).hexdigest()[:16]
        return self._folders / f"{ledger}-{digest}"

    def _label(self, ledger: str) -> None:
        path = self._folder(ledger) / _LABEL
        if not path.exists():
            write_json(path, {"name": ledger, "state": str(self.state)})


_LABEL = "ledger.json"


def site_of(state_dir: str | None, site_dir: str | None) -> Site:
    """The site with these directories; None for the defaults, under `FL_PPAE_HOME`.

    Raises:
        UserError: one is no directory, or is inside the other.
    """
    state, guard = (
        path_of(chosen or str(home() / default), what).resolve()
        for chosen, default, what in ((state_dir, "hospital", "state-dir"), (site_dir, "site", "site-dir"))
    )
    for what, folder in (("state-dir", state), ("site-dir", guard)):
        if (kind := kind_of(folder)) not in (FOLDER, MISSING):
            raise UserError(f"{what} {folder}: {kind}; name a folder")
    if state == guard or state in guard.parents or guard in state.parents:
        raise UserError(
            f"state-dir {state} and site-dir {guard} must not contain each other: what guards a ledger "
            "must not be lost with it"
        )
    return Site(state, guard)
