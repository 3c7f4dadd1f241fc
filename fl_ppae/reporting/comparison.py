"""Tables that compare runs, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from fl_ppae.errors import printable
from fl_ppae.files import finite
from fl_ppae.reporting.tables import EPSILON, brief_number, epsilon_cell
from fl_ppae.runs.comparison import audit_values, differing_keys
from fl_ppae.runs.stored import StoredRun
from fl_ppae.source_label import is_loud, marked_source

_NOTHING = "-"


def comparison_tables(runs: Sequence[StoredRun]) -> list[Table]:
    """Results, differing keys and, if any run was audited, audit results."""
    names = _short_names(runs)
    tables = [_results(runs, names), _keys(differing_keys(runs), names)]
    audit = audit_values(runs)
    return [*tables, _audit_table(audit, names)] if audit else tables


def _results(runs: Sequence[StoredRun], names: Sequence[str]) -> Table:
    table = _table("Results", names)

    def row(label: str, cell: Callable[[StoredRun], str | Text]) -> None:
        table.add_row(label, *(cell(run) for run in runs))

    row("status", lambda run: run.state)
    row("data", _marked)
    row("accuracy", lambda run: _number(run.summary.get("accuracy")))
    row("AUC", lambda run: _number(run.summary.get("auc")))
    row("balanced accuracy", lambda run: _number(run.summary.get("balanced_accuracy")))
    row("calibration error (ECE)", lambda run: _number(run.summary.get("ece")))
    row(EPSILON, lambda run: epsilon_cell(run.epsilon))
    row("everything that left has a guarantee", lambda run: "yes" if run.summary.get("formal") else "NO")
    row("reconstruction loss (MSE)", lambda run: _number(run.summary.get("reconstruction_loss")))
    metrics = list(dict.fromkeys(key for run in runs for key in run.summary.get("leakage") or {}))
    for metric in metrics:
        values = [(run.summary.get("leakage") or {}).get(metric) for run in runs]
        table.add_row(f"leakage: {metric}", *map(_number, values))
    return table


def _keys(differing: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Table:
    table = _table("Keys that differ" if differing else "No key differs", names)
    for key, values in differing.items():
        table.add_row(key, *(_NOTHING if value is None else str(value) for value in values))
    return table


def _audit_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    table = _table("Audit: what still leaks (95 % interval)", names)
    for row in rows:
        label = f"{row['attack']}, {row['threat_model']}: {row['metric']}"
        table.add_row(label, *(_measured(value) for value in row["values"]))
    return table


def _table(heading: str, names: Sequence[str]) -> Table:
    table = Table(
        title=Text(heading, style="bold"), title_justify="left", title_style="", header_style="bold"
    )
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _short_names(runs: Sequence[StoredRun]) -> list[str]:
    """The runs' names; their full paths if two runs share a name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [printable(str(run.path)) for run in runs]


def _marked(run: StoredRun) -> Text:
    return Text(marked_source(run.data_label), style="bold red" if is_loud(run.data_label) else "")


def _number(value: float | None) -> str:
    return _NOTHING if finite(value) is None else f"{value:.4f}"


def _measured(value: Mapping[str, Any] | None) -> str:
    if value is None or finite(value["value"]) is None:
        return _NOTHING
    text = brief_number(value["value"])
    low, high = (finite(value[end]) for end in ("low", "high"))
    return text if low is None else f"{text} ({brief_number(low)}..{brief_number(high)})"
