"""A run's `report.html`: everything in the run directory on one page, however far the run got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup
from rich.table import Table

from fl_ppae.attacks.attack import Result
from fl_ppae.attacks.runner import Audit, Skipped
from fl_ppae.config import shared_artefacts
from fl_ppae.privacy.figures import written
from fl_ppae.reporting.audit_report import audit_tables
from fl_ppae.reporting.evidence import Evidence
from fl_ppae.reporting.page import HtmlTable, as_html, is_picture, markdown, picture, write_page
from fl_ppae.reporting.report_images import figure_of, strips
from fl_ppae.reporting.run_charts import budget_chart, round_charts
from fl_ppae.reporting.tables import EPSILON, compared_with, run_tables, verdict
from fl_ppae.reporting.worth_line import headline
from fl_ppae.runs.reading import Unreadable, read_text
from fl_ppae.runs.rerun import changed_keys, rerun_command
from fl_ppae.runs.stored import StoredRun
from fl_ppae.source_label import is_loud, marked_source

NAME = "report.html"
_Row = TypeVar("_Row", Result, Skipped)
_NOT_YET = "The run ended before it wrote its privacy card."


def write_run_report(run: StoredRun, evidence: Evidence, output: Path | None = None) -> Path:
    """Write the report to `output`, by default into the run directory; returns its path."""
    path = output or run.path / NAME
    audit = _audit(run)
    uploads = "encodings" in shared_artefacts(run.values.get("share", ""))
    write_page(
        path,
        "run.html.j2",
        title=f"{_simulation(run)} - {marked_source(run.data_label)}",
        heading=_simulation(run),
        source=marked_source(run.data_label),
        loud=is_loud(run.data_label),
        run_name=run.name,
        status=run.state,
        notices=run.notices,
        error=str(run.summary.get("error") or ""),
        verdict=verdict(run).plain,
        headline=headline(run.summary),
        formal=bool(run.summary.get("formal")),
        facts=_facts(run),
        tables=_tables(run),
        compared=compared_with(run),
        rounds=round_charts(run),
        unmeasured=any(not row["accuracy"] for row in run.rows("rounds.csv")),
        budgets=budget_chart(run),
        mix=evidence.label_mix,
        mix_picture=figure_of(run, "label_distributions"),
        inversion=evidence.inversion,
        strips=[] if evidence.inversion is None else strips(evidence.inversion, uploads=uploads),
        uploads=uploads,
        encodings_picture=figure_of(run, "encodings"),
        missing=evidence.missing,
        deployed=bool(run.config.get("deployed")),
        audit=audit,
        card=_card(run),
        command=rerun_command(run),
        changed=changed_keys(run),
        values={key: value for key, value in run.values.items() if key != "output-dir"},
        versions=run.config.get("versions") or {},
        seconds=run.summary.get("seconds") or {},
        md5=(run.config.get("data_source") or {}).get("md5") or "",
        seed=run.config.get("seed"),
    )
    return path


def _simulation(run: StoredRun) -> str:
    return str(run.summary.get("simulation") or run.name)


def _facts(run: StoredRun) -> list[tuple[str, str, str]]:
    """(name, value, what it was measured on)."""

    def number(key: str, digits: int) -> str:
        value = run.summary.get(key)
        return "-" if value is None else f"{value:.{digits}f}"

    delta = run.values.get("target-delta")
    private = "" if delta is None else f"at delta {delta:g}, maximum over hospitals"
    return [
        ("accuracy", number("accuracy", 3), "of the central classifier, official test split"),
        ("AUC", number("auc", 3), "one versus the rest, mean over classes"),
        ("balanced accuracy", number("balanced_accuracy", 3), "mean recall of the classes"),
        (EPSILON, written(run.epsilon.epsilon, run.epsilon.basis, alone=run.epsilon.alone), private),
        ("reconstruction loss", number("reconstruction_loss", 4), "mean squared error, pixels 0 to 1"),
        (
            "hospitals",
            str(run.config.get("hospitals", "-")),
            f"partition: {run.values.get('partition', '-')}",
        ),
        (
            "rounds",
            f"{len(run.rows('rounds.csv'))} of {run.values.get('num-server-rounds', '-')}",
            f"share: {run.values.get('share', '-')}; scope of the noise: {run.values.get('dp-scope', '-')}",
        ),
    ]


def _tables(run: StoredRun) -> dict[str, HtmlTable]:
    """The tables that the terminal shows, by section of the report."""
    tables = [as_html(table) for table in run_tables(run) if isinstance(table, Table)]
    sections = ["quality"]
    sections += ["budgets"] if run.hospitals() else []
    sections += ["guarantees"] if run.summary.get("guarantees") else []
    return dict(zip(sections, tables, strict=True))


def _audit(run: StoredRun) -> dict[str, Any] | None:
    """The results and figures of an audit, from `audit/`; None if there was no audit."""
    document = run.audit
    if document is None:
        return None
    results = tuple(_known(Result, row) for row in document["results"])
    skipped = tuple(_known(Skipped, row) for row in document.get("skipped", ()))
    audit = Audit(results, (), skipped, {})
    figures = [run.path / "audit" / name for name in document.get("figures", ())]
    figures.sort(key=lambda path: (not path.name.startswith("inversion"), path.name))
    return {
        "quick": document.get("quick", False),
        "tables": [as_html(table) for table in audit_tables(run.name, run.data_label, audit, headed=False)],
        "pictures": [
            picture(path, f"Figure of the audit: {name}", name)
            for path in figures
            if is_picture(path)
            for name in [path.stem.replace("_", ", ")]
        ],
    }


def _known(kind: type[_Row], row: Mapping[str, Any]) -> _Row:
    """A row of an audit, also of another version: without further keys, None for those it lacks."""
    defaults = {one.name: None if one.default is MISSING else one.default for one in fields(kind)}
    return kind(**{name: row.get(name, default) for name, default in defaults.items()})


def _card(run: StoredRun) -> Markup:
    path = run.path / "privacy_card.md"
    try:
        text = read_text(path)
    except Unreadable as problem:
        return Markup("<p>{}</p>").format(f"{path} is unreadable: {problem}" if path.exists() else _NOT_YET)
    body = text.partition("\n")[2] if text.startswith("# ") else text
    return markdown(body.replace("\n## ", "\n### "))
