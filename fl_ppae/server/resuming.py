"""The server's side of going on with an interrupted run: is it the same run, and where does each stand?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.runs.checkpoint import FILE, Checkpoint
from fl_ppae.runs.stored import open_run
from strategies.enrolment import Enrolment
from strategies.kept_accounts import restore_account
from strategies.server_ledger import ServerLedger


def check_same_run(path: Path, document: Mapping[str, Any]) -> None:
    """Check what would be this run's `config.json` against that of the run in `path`.

    Raises:
        UserError: names the first difference in keys, data, hospitals or numbers of records.
    """
    stored = read_json(path / "config.json")
    before, now = (RunConfig.from_flat(one["config"]).lasting() for one in (stored, document))
    for key, value in before.items():
        if now[key] != value:
            raise UserError(f"the run {path} has {key} = {value!r}, not {now[key]!r}; resume it with its own")
    for what in ("data_source", "deployed", "hospitals", "records"):
        if stored.get(what) != document[what]:
            raise UserError(
                f"the run {path} has {what.replace('_', ' ')} {stored.get(what)}, not {document[what]}; "
                "resume it with its own"
            )


def restore_accounts(server_ledger: ServerLedger, checkpoint: Checkpoint, path: Path) -> None:
    """Put every hospital's account back as it stood after the checkpoint's round.

    Raises:
        UserError: they are not those of the same hospitals.
    """
    try:
        kept = checkpoint.state["accounts"]
        if list(kept) != list(server_ledger.accounts):
            raise ValueError("other hospitals")
        for name, account in server_ledger.accounts.items():
            restore_account(account, kept[name])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{path / FILE} does not hold these hospitals' accounts; start the run again"
        ) from None


def exclude_those_behind(
    server_ledger: ServerLedger, path: Path, checkpoint: Checkpoint, enrolments: Mapping[str, Enrolment]
) -> None:
    """Exclude hospitals whose own training stands before a round that they finished for the checkpoint."""
    for name, rows in open_run(path).hospitals().items():
        trained = [int(row["round"]) for row in rows if row["status"] == "trained"]
        finished = max((one for one in trained if one <= checkpoint.round), default=0)
        if (reached := enrolments[name].round) < finished:
            reason = (
                f"its training stands after round {reached}, but it finished round {finished}: its state "
                "directory is not the one it had"
            )
            server_ledger.exclude(name, reason)
