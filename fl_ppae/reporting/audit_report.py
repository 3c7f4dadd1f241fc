"""An audit's tables, and its files under `audit/`."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any

from rich.table import Table
from rich.text import Text

from fl_ppae.attacks.attack import Attack, Result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.runner import Audit, Skipped
from fl_ppae.files import csv_cell, finite, write_atomically, write_json
from fl_ppae.reporting.tables import brief_number, title

_NOTHING = "-"
_COLUMNS = (
    "value",
    "95 % interval",
    "at\nchance",
    "knowing\nthe class",
    "allowed by\nthe guarantee",
    "without\ndefence",
    "n",
)
_MEMBERSHIP = "membership-"


def write_audit(audited: AuditedRun, audit: Audit, *, quick: bool, seconds: float) -> dict[str, Any]:
    """Write `audit/results.json`, `audit/results.csv` and the figures; returns the JSON document.

    Files of an earlier audit with the same names are overwritten.
    """
    folder = audited.path / "audit"
    folder.mkdir(exist_ok=True)
    document = {
        "run_directory": str(audited.path),
        "data_source": audited.stored.data_label,
        "quick": quick,
        "effort": asdict(audited.effort),
        "seconds": round(seconds, 1),
        "results": [finite(asdict(row)) for row in audit.results],
        "details": [finite(asdict(row)) for row in audit.details],
        "skipped": [asdict(skipped) for skipped in audit.skipped],
        "figures": sorted(audit.figures),
    }
    write_json(folder / "results.json", document)
    write_atomically(folder / "results.csv", _csv((*audit.results, *audit.details)))
    for name, draw in audit.figures.items():
        draw(folder / name)
    return document


def audit_tables(name: str, data_label: str, audit: Audit, *, headed: bool = True) -> list[Table]:
    """One row per result and, in a second table, one per skipped attack with the reason.

    `headed`: each attack is a heading with its metrics below, for a terminal. Otherwise each row names its
    attack, so that rows can be sorted.
    """
    tables = []
    if audit.results:
        table = _headed_table(audit.results) if headed else _flat_table(audit.results)
        table.title = title(f"Audit of {name}", data_label)
        table.caption = (
            "for inversion, at chance is the mean image, knowing the class is the class-mean image"
        )
        tables.append(table)
    if audit.skipped:
        tables.append(_skipped_table(name, data_label, audit.skipped))
    return tables


def _headed_table(results: Iterable[Result]) -> Table:
    table = _numbers_table("attack: threat model\n  metric")
    for (attack, threat_model), rows in itertools.groupby(results, attrgetter("attack", "threat_model")):
        table.add_row(Text.assemble((attack, "bold"), f": {threat_model}"))
        for row in rows:
            table.add_row(f"  {_metric(row)}", *_numbers(row))
        table.add_section()
    return table


def _flat_table(results: Iterable[Result]) -> Table:
    table = _numbers_table("attack", "threat model", "metric")
    for row in results:
        table.add_row(row.attack, row.threat_model, _metric(row), *_numbers(row))
    return table


def _numbers_table(*words: str) -> Table:
    table = Table(title_justify="left", title_style="")
    for column in words:
        table.add_column(column, min_width=24)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _metric(row: Result) -> str:
    return row.metric.replace("_", " ") + (f" ({row.variant})" if row.variant else "")


def _numbers(row: Result) -> tuple[str, ...]:
    interval = _NOTHING if row.low is None else f"{brief_number(row.low)}..{brief_number(row.high)}"
    unbounded = row.allowed is None and row.attack.startswith(_MEMBERSHIP)
    compared = (
        brief_number(row.chance),
        brief_number(row.class_chance),
        "no guarantee" if unbounded else brief_number(row.allowed),
        brief_number(row.undefended),
    )
    return brief_number(row.value), interval, *compared, str(row.n)


def _skipped_table(name: str, data_label: str, skipped: Iterable[Skipped]) -> Table:
    table = Table(title=title(f"Skipped in {name}", data_label), title_justify="left", title_style="")
    for column in ("attack", "threat model", "why"):
        table.add_column(column, overflow="fold")
    for missing in skipped:
        table.add_row(missing.attack, missing.threat_model, Text(missing.reason, style="yellow"))
    return table


def attack_table(attacks: Sequence[Attack]) -> Table:
    """One row per attack: what it does and where it is published."""
    table = Table(
        title="Attacks",
        title_justify="left",
        title_style="",
        caption="poisoning attacks are switched on during a run, not audited afterwards: -c adversary=... "
        "-c adversary-hospitals=... (docs/poisoning.md)",
    )
    for column in ("attack", "what it does", "threat models", "source"):
        table.add_column(column, overflow="fold", no_wrap=column == "attack")
    for attack in attacks:
        models = ", ".join(model.name for model in attack.threat_models)
        table.add_row(attack.name, attack.description, models, attack.source)
    return table


def attack_documents(attacks: Sequence[Attack]) -> list[dict[str, Any]]:
    """The same for `--json`."""
    return [
        {
            "name": attack.name,
            "description": attack.description,
            "source": attack.source,
            "threat_models": {model.name: model.description for model in attack.threat_models},
        }
        for attack in attacks
    ]


def _csv(rows: Iterable[Result]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) for key, value in asdict(row).items()})
    return text.getvalue().encode()
