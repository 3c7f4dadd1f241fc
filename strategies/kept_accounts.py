"""The server ledger's accounts as a checkpoint keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fl_ppae.privacy.events import Event, as_dict, from_dict
from strategies.server_ledger import ACTIVE, EXCLUDED, STOPPED, Account

_EVENTS = ("history", "charges", "claimed", "refuted_events")
_TEXTS = ("status", "reason", "refuted")


def account_document(account: Account) -> dict[str, Any]:
    """Everything in an account but its terms, which the run's plan makes again."""
    return {
        **{name: _rows(getattr(account, name)) for name in _EVENTS},
        **{name: getattr(account, name) for name in _TEXTS},
        "refuted_epsilon": account.refuted_epsilon,
        "chain": account.seen.chain if account.seen is not None else "",
    }


def restore_account(account: Account, document: Mapping[str, Any]) -> None:
    """Put what `account_document` returned back into an account with the same terms.

    Raises:
        KeyError, TypeError, ValueError: it is no such document.
    """
    events = {name: tuple(map(from_dict, document[name])) for name in _EVENTS}
    texts = {name: str(document[name]) for name in _TEXTS}
    if texts["status"] not in (ACTIVE, STOPPED, EXCLUDED):
        raise ValueError(f"there is no status {texts['status']}")
    account.history, account.charges = events["history"], list(events["charges"])
    account.claimed, account.refuted_events = events["claimed"], events["refuted_events"]
    account.status, account.reason, account.refuted = (texts[name] for name in _TEXTS)
    account.refuted_epsilon = float(document["refuted_epsilon"])
    chain = str(document["chain"])
    if account.seen is not None and len(chain) > len(account.seen.chain):
        account.seen.chain = chain


def _rows(events: Iterable[Event]) -> list[dict[str, str | float | int]]:
    return [as_dict(event) for event in events]
