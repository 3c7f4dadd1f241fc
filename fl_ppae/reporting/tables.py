"""Result tables. Each names its data source in the title, and each epsilon says if it is no guarantee."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fl_ppae.config import shared_artefacts
from fl_ppae.privacy.figures import FORMAL, NOMINAL, NONE, REFUTED, Figure, assumed_honest, mark, written
from fl_ppae.protection import COMMON_HEAD
from fl_ppae.reporting.grounds import grounds
from fl_ppae.reporting.worth_line import headline
from fl_ppae.runs.reading import Row
from fl_ppae.runs.stored import UNREADABLE, StoredRun, basis_of
from fl_ppae.source_label import ATTACK_MARK

EPSILON = "epsilon (encoder updates)"
_NOTHING = "-"
_WORDS = {
    "",
    "ledger",
    "run",
    "status",
    "data",
    "dataset",
    "state",
    "where",
    "hospital",
    "artefact",
    "guarantee",
}
_WHOLE = {"run", "hospital", EPSILON}  # never wrapped, however narrow the terminal
_METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "ece": "calibration error (ECE)",
    "class_distance": "mean distance of the class",
    "accuracy_noised": "accuracy, new encodings noised too",
    "reconstruction_loss": "reconstruction loss (MSE)",
    "attack_success_rate": "backdoor: trigger gives the target class",
    "attack_success_rate_untriggered": "backdoor: the same images without it",
}
_AUDITED = {
    "own": "the hospital's noised sums",
    "joint": "the sum of the honest hospitals",
    "alone": "the hospital's own share",
}
_ALWAYS = {"accuracy", "auc", "reconstruction_loss"}


def title(text: str, data_label: str) -> Text:
    """A table's title with its data source. A stand-in or an attack is shown in white on red."""
    parts: list[str | tuple[str, str]] = [(f"{text} - ", "bold")]
    source, attack, who = data_label.partition(ATTACK_MARK)
    if source.startswith("stand-in"):
        parts.append((f"{source.upper()}, NOT REAL DATA", "bold white on red"))
    else:
        parts.append((source, "bold"))
    if attack:
        parts.append((attack + who, "bold white on red"))
    return Text.assemble(*parts)


def brief_number(value: float | None) -> str:
    """A value with two to four decimals, by its size; a dash for none and for what is not finite."""
    if value is None or not math.isfinite(value):
        return _NOTHING
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.4f}"


def epsilon_cell(figure: Figure) -> str:
    """An epsilon for a table: what it assumes, and what it is without, in a line each."""
    words = written(
        figure.epsilon, figure.basis, alone=figure.alone, brief=assumed_honest(figure.basis) is not None
    )
    return words.replace("; ", ";\n")


def notices(run: StoredRun) -> list[Text]:
    """What a reader must know before the results; nothing if the run has ended and is whole."""
    return [Text(text, style="bold red") for text in run.notices]


def run_tables(run: StoredRun) -> list[RenderableType]:
    """The results of a run: quality, each hospital's budget, guarantees, the verdict, and its headline."""
    name = str(run.summary.get("simulation") or run.name)
    tables: list[RenderableType] = [_quality_table(name, run)]
    if hospitals := run.hospitals():
        tables.append(_hospital_table(run, hospitals))
    if run.summary.get("guarantees"):
        tables.append(_guarantee_table(run))
    tables.append(verdict(run))
    if line := headline(run.summary):
        tables.append(Text(line, style="bold"))
    return tables


def plan_table(hospitals: Sequence[Mapping[str, Any]], heading: Text, terms: str, basis: str) -> Table:
    """One row per hospital, from the output of `fl-ppae plan --json`."""
    numbers = ("records", "sample rate", "noise", "steps per round", "rounds", "after round 1")
    table = _table(heading, "hospital", *numbers, EPSILON, "under one noise for all")
    released = [row["epsilon_replace_one"] for row in hospitals]
    if any(total is not None for total in released):
        table.add_column("everything released, replace-one", justify="right")
    table.caption = f"{terms}; noise is in multiples of max-grad-norm"

    def brief(epsilon: float | None) -> str:
        return written(epsilon, basis, brief=True)

    for row in hospitals:
        table.add_row(
            row["name"],
            f"{row['records']:,}",
            _number(row["sample_rate"]),
            _number(row["noise_multiplier"]),
            str(row["steps_per_round"]),
            str(row["rounds"]),
            brief(row["epsilon_round"]),
            epsilon_cell(Figure(row["epsilon_total"], basis, row["epsilon_alone"])),
            brief(row["epsilon_total_shared_noise"]),
            *([brief(row["epsilon_replace_one"])] if any(total is not None for total in released) else []),
        )
    return table


def audit_table(audit: Mapping[str, Any], heading: Text) -> Table:
    """What an epsilon audit found, one line each, from the output of `fl-ppae audit-epsilon --json`."""
    table = _table(heading, "", "value")
    stands = audit["formal"] or audit["claimed_by"] != "ledger"
    assumes = f" if {audit['assumes']}" if audit.get("assumes") else ""
    claimed = written(audit["claimed"], FORMAL if stands else NOMINAL) + assumes
    trained = "rounds" in audit
    rows = {
        "hospital": audit["hospital"],
        "artefact": audit["artefact"],
        "dp-scope": audit["dp_scope"],
        "records": f"{audit['records']:,}",
        "canaries, each by a fair coin": f"{audit['canaries']:,}",
        "independent trainings" if trained else "independent uploads": str(audit["trainings"]),
    }
    if trained:
        rows |= {
            "audited": _AUDITED[audit.get("figure", "own")],
            "noise multiplier": _number(audit["noise_multiplier"]),
            "steps observed in each": f"{audit['steps']} in {audit['rounds']} rounds",
        }
    rows |= {
        f"epsilon claimed ({audit['claimed_by']}), delta {audit['delta']:g}": claimed,
        f"epsilon is at least (confidence {audit['confidence']:g})": _number(audit["lower_bound"], 2),
        "largest lower bound possible": _number(audit["largest_possible"], 2),
    }
    if trained:
        rows["from the returned weights alone: at least"] = _number(audit["lower_bound_from_weights"], 2)
    for name, verdict in audit["controls"].items():
        rows[f"control, {name}: at least"] = f"{audit['control_bounds'][name]:.2f}, {verdict}"
    for name, outcome in audit["checks"].items():
        rows[f"test, {name}"] = outcome
    for label, value in rows.items():
        table.add_row(label, value)
    return table


def runs_table(runs: Iterable[StoredRun]) -> Table:
    """One row per run directory."""
    table = _table(Text("Runs"), "run", "status", "data", "accuracy", EPSILON)
    for run in runs:
        table.add_row(
            run.name,
            _standing(run),
            run.data_label,
            _number(run.summary.get("accuracy")),
            epsilon_cell(run.epsilon),
        )
    return table


def _standing(run: StoredRun) -> Text:
    """How a run stands, and which of its files can't be read."""
    style = {"completed": "green", "failed": "red"}.get(run.state, "yellow")
    if not run.problems:
        return Text(run.state, style=style)
    files = f"{UNREADABLE}: {', '.join(run.problems)}"
    return Text(files if run.state == UNREADABLE else f"{run.state}, {files}", style="red")


def data_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per dataset, from the output of `fl-ppae data --json`."""
    table = _table(Text("Official files on this machine"), "dataset", "images", "classes", "state", "where")
    for row in rows:
        style = "green" if row["state"] == "present" else "yellow"
        table.add_row(
            row["dataset"],
            " x ".join(map(str, row["image_shape"])),
            str(row["classes"]),
            Text(row["state"], style=style),
            row["path"],
        )
    return table


def _quality_table(name: str, run: StoredRun) -> Table:
    baselines = run.summary.get("baselines") or {}
    leakage = run.summary.get("leakage") or {}
    columns = (
        {**run.summary, **leakage},
        baselines.get("random_encoder") or {},
        baselines.get("raw_pixels") or {},
    )
    table = _table(title(name, run.data_label), "", "this run", "random encoder", "raw pixels")
    for key, label in _METRICS.items():
        if key not in _ALWAYS and key not in run.summary:
            continue
        table.add_row(label, *(_number(column.get(key)) for column in columns))
    for of_class, value in (run.summary.get("recall") or {}).items():
        table.add_row(f"recall: {of_class}", *map(_number, (value, None, None)))
    for key in leakage:
        table.add_row(f"leakage: {key}", *(_number(column.get(key)) for column in columns))
    findings = "; ".join((run.summary.get("data_findings") or {}).get("in_words") or ())
    compared = compared_with(run) if run.values.get("classifier") == COMMON_HEAD else ""
    table.caption = "\n".join(filter(None, (compared, findings))) or None
    return table


def compared_with(run: StoredRun) -> str:
    """What stands beside a run's own numbers, in a sentence."""
    pixels = (run.summary.get("baselines") or {}).get("raw_pixels")
    if pixels is None and run.values.get("classifier") == COMMON_HEAD:
        return (
            "The server has no labelled image: no other classifier and no reconstruction loss was measured."
        )
    other = "logistic regression on the server's images"
    classifier = other if run.values.get("classifier") == COMMON_HEAD else "the same classifier"
    return f"For comparison: {classifier}, on encodings of a random, untrained encoder and on raw pixels."


def _hospital_table(run: StoredRun, hospitals: Mapping[str, Sequence[Row]]) -> Table:
    unbounded = run.values.get("dp-scope") == "none"
    heading = title("Privacy budgets", run.data_label)
    table = _table(heading, "hospital", "records", "noise", "rounds trained", EPSILON, "target")
    table.add_column("last status")
    for name, rows in hospitals.items():
        last = rows[-1]
        table.add_row(
            name,
            last["records"],
            _number(last["noise_multiplier"]),
            str(sum(row["status"] == "trained" for row in rows)),
            _spent(run, name, last),
            "-" if unbounded else _number(run.values.get("target-epsilon"), 2),
            ": ".join(filter(None, (last["status"], last["reason"]))),
        )
    return table


def _guarantee_table(run: StoredRun) -> Table:
    heading = title("Guarantee of each artefact", run.data_label)
    table = _table(heading, "artefact", "epsilon", "delta", "guarantee")
    table.add_column("note", overflow="fold")
    shared = shared_artefacts(run.values.get("share", "updates"))
    for artefact, guarantee in run.summary["guarantees"].items():
        if guarantee is None:
            continue
        formal = bool(guarantee.get("formal"))
        standing = Text(f"{FORMAL}, {grounds(artefact, guarantee, shared)}", style="green")
        table.add_row(
            artefact,
            epsilon_cell(
                Figure(guarantee.get("epsilon"), basis_of(guarantee), guarantee.get("epsilon_alone"))
            ),
            _NOTHING if guarantee.get("delta") is None else f"{guarantee['delta']:g}",
            standing if formal else Text(_verdict_of(guarantee), style="red"),
            str(guarantee.get("note") or ""),
        )
    return table


def verdict(run: StoredRun) -> Text:
    """One line: whether everything that left a hospital has a guarantee, or how the run ended."""
    if run.summary.get("status") != "completed":
        cause = run.summary.get("error")
        text = f"status: {run.state}" + (f": {cause}" if cause else "")
        return Text(text, style="bold red")
    total = (run.summary.get("guarantees") or {}).get("total") or {}
    if run.summary.get("formal") and total.get("formal", True):
        assumption = mark(basis_of(total)) if total else ""
        return Text(f"Everything that left a hospital has a formal guarantee{assumption}.", style="green")
    if run.summary.get("formal"):
        note = total.get("note", "none")
        text = f"Everything that left a hospital in this run has a guarantee. Total: {note}."
        return Text(text, style="yellow")
    if refuted := run.summary.get("refuted"):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refuted.items())
        return Text(f"No formal guarantee, because a claim was refuted: {reasons}.", style="yellow")
    return Text("Not everything that left a hospital has a formal guarantee.", style="yellow")


def _spent(run: StoredRun, name: str, last: Row) -> str:
    """A hospital's epsilon: of the summary, which also counts uploads, or of its last round so far."""
    bases = run.summary.get("epsilon_basis")
    if bases and name in bases:
        number, alone = ((run.summary.get(key) or {}).get(name) for key in ("epsilon", "epsilon_alone"))
        return epsilon_cell(Figure(number, bases[name], alone))
    number, alone = (float(last[key]) if last[key] else None for key in ("epsilon", "epsilon_alone"))
    return epsilon_cell(Figure(number, last.get("epsilon_basis") or run.epsilon.basis, alone))


def _verdict_of(guarantee: Mapping[str, Any]) -> str:
    return REFUTED if basis_of(guarantee) == REFUTED else NONE


def ledgers_table(rows: Sequence[Mapping[str, Any]], state: Path, delta: float) -> Table:
    """One row per ledger of a site, from the output of `fl-ppae ledger show --json`."""
    heading = Text(f"Ledgers in {state}", style="bold")
    table = _table(heading, "ledger", "different images", "releases", "total epsilon", "state")
    table.caption = f"total epsilon: of all releases at delta {delta:g}, replace one record"
    for row in rows:
        total = row["epsilon_total"]
        unbounded = total is not None and not math.isfinite(total)
        spent = epsilon_cell(Figure(total, row["epsilon_basis"], row["epsilon_alone"]))
        table.add_row(
            row["ledger"],
            f"{row['records']:,}",
            _NOTHING if row["events"] is None else f"{row['events']:,}",
            "no bound" if unbounded else spent,
            row["problem"] or "in order",
        )
    return table


def _table(heading: Text, *columns: str) -> Table:
    """An empty table: columns of words are aligned left, columns of numbers right."""
    table = Table(title=heading, title_justify="left", title_style="", header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in _WORDS else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in _WHOLE)
    return table


def _number(value: float | str | None, digits: int = 4) -> str:
    return _NOTHING if value is None or value == "" else f"{float(value):.{digits}f}"
