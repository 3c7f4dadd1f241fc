"""`fl-ppae ledger`: what a site's records have spent, and what only its operator may change."""

from __future__ import annotations

import argparse
from typing import Any

from fl_ppae.catalogue import parse_overrides
from fl_ppae.commands.output import notes, show
from fl_ppae.config import RunConfig
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.hospital.ledgers import Site, site_of
from fl_ppae.privacy.accounting import replace_one_epsilon
from fl_ppae.privacy.events import Declared
from fl_ppae.privacy.figures import FORMAL, formal_if
from fl_ppae.privacy.honest import ALONE, assuming, fewest_honest
from fl_ppae.reporting.tables import ledgers_table


def show_ledgers(arguments: argparse.Namespace) -> int:
    """List a site's ledgers: what each has spent at a delta, and what is wrong with it."""
    site = _site(arguments)
    rows = [_row(site, name, arguments.delta) for name in site.ledgers]
    document = {"state_dir": str(site.state), "site_dir": str(site.guard), "ledgers": rows}
    show(document, [ledgers_table(rows, site.state, arguments.delta)], as_json=arguments.json)
    return 0


def open_ledger(arguments: argparse.Namespace) -> int:
    """Open a further ledger for the records of a file, which the operator declares to be in no other."""
    site, name = _site(arguments), arguments.ledger
    source = {"dataset": arguments.dataset, "data-source": "file", "data-file": arguments.data_file}
    given = {**parse_overrides(arguments.overrides), **source}
    site.open(name, resolve(RunConfig.from_flat(given)))
    records = len(site.records(name))
    lines = [
        f"ledger {name} is open for {records:,} different images, none of which is in another ledger;",
        f'to use it, write ledger="{name}" into the node config',
    ]
    show({"ledger": name, "records": records}, lines, as_json=arguments.json)
    notes().print(
        "an image that was changed in any pixel is not recognised: that none is a changed copy of a record "
        "in another ledger is your declaration",
        style="yellow",
        highlight=False,
    )
    return 0


def accept_loss(arguments: argparse.Namespace) -> int:
    """Charge a ledger for the events that it has lost, so that it can be used again."""
    try:
        cost = Declared(arguments.max_epsilon, arguments.delta)
    except ValueError as error:
        raise UserError(f"--max-epsilon or --delta: {error}") from None
    _site(arguments).accept_loss(arguments.ledger, cost)
    document = {"ledger": arguments.ledger, "epsilon": cost.epsilon, "delta": cost.delta}
    text = (
        f"ledger {arguments.ledger} is charged epsilon {cost.epsilon:g} at delta {cost.delta:g}; "
        f"further runs need a max-epsilon above {cost.epsilon:g} and a target-delta above {cost.delta:g}"
    )
    show(document, [text], as_json=arguments.json)
    return 0


def _site(arguments: argparse.Namespace) -> Site:
    return site_of(arguments.state_dir or None, arguments.site_dir or None)


def _row(site: Site, name: str, delta: float) -> dict[str, Any]:
    state = site.state_of(name)
    row = {"ledger": name, "path": str(state.ledger_path), "records": len(site.records(name))}
    try:
        with state.lock():
            events = state.verify()
    except UserError as problem:
        nothing = {"events": None, "epsilon_total": None, "epsilon_basis": FORMAL, "epsilon_alone": None}
        return row | {**nothing, "delta": delta, "problem": str(problem)}
    honest = fewest_honest(events)
    spent = {
        "events": len(events),
        "epsilon_total": replace_one_epsilon(events, delta),
        "epsilon_basis": formal_if(honest),
        "epsilon_alone": None if honest is None else replace_one_epsilon(assuming(events, ALONE), delta),
    }
    return row | {**spent, "delta": delta, "problem": ""}
