"""`report.html` of a run: everything that its directory tells, on one page, however far the run got."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from fl_ppae.config import shared_artefacts
from fl_ppae.files import read_json
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.reporting.charts import Axes, Point, Series, bar_chart, xy_chart
from fl_ppae.reporting.evidence import Evidence, Inversion, LabelMix
from fl_ppae.reporting.page import HtmlTable, Picture, as_html, embedded, markdown, picture, write_page
from fl_ppae.reporting.tables import EPSILON, format_epsilon, run_tables, verdict
from fl_ppae.runs.rerun import changed_keys, rerun_command
from fl_ppae.runs.stored import StoredRun
from fl_ppae.source_label import is_loud, marked_source

NAME = "report.html"
_SIMILARITIES = ("cosine", "cosine_centred", "cosine_mismatched")
_NOT_YET = "This run ended before it wrote one."


@dataclass(frozen=True)
class Strip:
    """A row of images with its name, what it shows, and the mean SSIM to the originals if it is a guess."""

    name: str
    picture: Picture
    ssim: str


@dataclass(frozen=True)
class Chart:
    """A chart and its title."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class MixRow:
    """One hospital's records by class: (count, share of the hospital's records in percent)."""

    hospital: str
    cells: tuple[tuple[int, int], ...]
    records: int
    distance: str


def write_run_report(run: StoredRun, evidence: Evidence, output: Path | None = None) -> Path:
    """Write the report into the run's directory, or to `output`; returns where it is."""
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
        status=str(run.summary.get("status", "unknown")),
        error=str(run.summary.get("error") or ""),
        verdict=verdict(run).plain,
        formal=bool(run.summary.get("formal")),
        facts=_facts(run),
        tables=_tables(run),
        rounds=_rounds(run),
        unmeasured=any(not row["accuracy"] for row in run.rows("rounds.csv")),
        budgets=_budgets(run),
        mix=None if evidence.label_mix is None else _mix(evidence.label_mix),
        mix_picture=_mix_picture(run, evidence),
        inversion=evidence.inversion,
        strips=[] if evidence.inversion is None else _strips(evidence.inversion, uploads=uploads),
        uploads=uploads,
        encodings_picture=_encodings_picture(run),
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


def _updates_formal(run: StoredRun) -> bool:
    return bool(((run.summary.get("guarantees") or {}).get("updates") or {}).get("formal"))


def _facts(run: StoredRun) -> list[tuple[str, str, str]]:
    """(name, value, what it is measured on)."""

    def number(key: str, digits: int) -> str:
        value = run.summary.get(key)
        return "-" if value is None else f"{value:.{digits}f}"

    delta = run.values.get("target-delta")
    private = "" if delta is None else f"at delta {delta:g}, largest of the hospitals"
    return [
        ("accuracy", number("accuracy", 3), "of the central classifier, official test split"),
        ("AUC", number("auc", 3), "one against the rest, mean over classes"),
        (EPSILON, format_epsilon(run.summary.get("epsilon_max"), formal=_updates_formal(run)), private),
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
    """The terminal's tables, by the section they belong to."""
    made = [as_html(table) for table in run_tables(run) if isinstance(table, Table)]
    sections = ["quality"]
    sections += ["budgets"] if run.hospitals() else []
    sections += ["guarantees"] if run.summary.get("guarantees") else []
    return dict(zip(sections, made, strict=True))


def _rounds(run: StoredRun) -> list[Chart]:
    rows = run.rows("rounds.csv")
    formal = SCOPES[run.values["dp-scope"]].formal if run.values else False
    worth = "" if formal else ", nominal, not a guarantee"
    target = _target(run)

    def chart(
        title: str, label: str, columns: Mapping[str, str], *, zero: bool = False, goal: float | None = None
    ) -> Chart | None:
        series = [
            Series(name, tuple(Point(float(row["round"]), float(row[key])) for row in rows if row.get(key)))
            for key, name in columns.items()
        ]
        series = [one for one in series if one.points]
        axes = Axes(title, "round", label, run.data_label)
        if not series:
            return None
        span = (1, int(rows[-1]["round"]))
        return Chart(title, xy_chart(series, axes, target=goal, from_zero=zero, whole=span))

    charts = [
        chart("Accuracy and AUC", "on the test split (0 to 1)", {"accuracy": "accuracy", "auc": "AUC"}),
        chart(
            "Epsilon of the encoder updates" + worth,
            "epsilon" + worth,
            {"epsilon_max": EPSILON},
            zero=True,
            goal=target,
        ),
        chart(
            "Reconstruction loss",
            "mean squared error, pixels 0 to 1",
            {"reconstruction_loss": "reconstruction loss"},
            zero=True,
        ),
        chart(
            "Leakage: image against encoding",
            "cosine similarity (-1 to 1)",
            {key: key.replace("_", " ") for key in _SIMILARITIES},
        ),
        chart(
            "Leakage: retrieval",
            "share found, top 1 (0 to 1)",
            {"retrieval_top1": "retrieval top 1"},
            zero=True,
        ),
    ]
    return [made for made in charts if made is not None]


def _target(run: StoredRun) -> float | None:
    """The budget that noise was calibrated to; None where a fixed noise, or none, was asked for."""
    values = run.values
    if not values or values["noise-multiplier"] or not SCOPES[values["dp-scope"]].noised:
        return None
    return float(values["target-epsilon"])


def _budgets(run: StoredRun) -> Markup | None:
    spent = {name: value for name, value in (run.summary.get("epsilon") or {}).items() if value is not None}
    if not spent:
        last = {name: rows[-1]["epsilon"] for name, rows in run.hospitals().items()}
        spent = {name: float(value) for name, value in last.items() if value}
    if not spent:
        return None
    formal = SCOPES[run.values["dp-scope"]].formal if run.values else False
    label = EPSILON + ("" if formal else ", nominal, not a guarantee")
    axes = Axes("Privacy spent by each hospital", label, "hospital", run.data_label)
    return bar_chart(spent, axes, target=_target(run), hollow=not formal)


def _mix(mix: LabelMix) -> dict[str, Any]:
    rows = [
        MixRow(
            name,
            tuple((count, round(100 * count / max(1, sum(counts)))) for count in counts),
            sum(counts),
            f"{mix.distance[name]:.3f}",
        )
        for name, counts in mix.counts.items()
    ]
    return {"classes": mix.classes, "rows": rows}


def _mix_picture(run: StoredRun, evidence: Evidence) -> Picture | None:
    """Without the data, the figure that the run itself drew."""
    path = run.path / "figures" / "label_distributions.png"
    if evidence.label_mix is not None or not path.is_file():
        return None
    return picture(
        path, "Stacked bars: train records of each class in each hospital", "Drawn by the run itself."
    )


def _encodings_picture(run: StoredRun) -> Picture | None:
    path = run.path / "figures" / "encodings.png"
    if not path.is_file():
        return None
    return picture(
        path, "Test images, each above its encoding", "Test images and their encodings, by the run itself."
    )


def _strips(inversion: Inversion, *, uploads: bool) -> list[Strip]:
    words = {
        "original": "train images whose encodings were uploaded" if uploads else "official test images",
        "encoding": "what the attacker sees: channels tiled, or a vector folded to a square",
        "attacker, linear": f"ridge regression from {inversion.pairs:,} pairs",
        "class-mean image": "a guess by one who knows only the label",
        "mean image": "a guess by one who knows nothing",
    }
    return [
        Strip(
            name,
            Picture(embedded(png), f"{name}: {words[name]}", words[name]),
            f"{inversion.ssim[name]:.3f}" if name in inversion.ssim else "",
        )
        for name, png in inversion.rows.items()
    ]


def _audit(run: StoredRun) -> dict[str, Any] | None:
    """An audit's results and figures, as it left them under `audit/`."""
    from fl_ppae.attacks.attack import Result
    from fl_ppae.attacks.runner import Audit, Skipped
    from fl_ppae.reporting.audit_report import audit_tables

    try:
        document = read_json(run.path / "audit" / "results.json")
    except (OSError, json.JSONDecodeError):
        return None
    results = tuple(Result(**row) for row in document["results"])
    skipped = tuple(Skipped(**row) for row in document["skipped"])
    figures = [run.path / "audit" / name for name in document["figures"]]
    figures.sort(key=lambda path: (not path.name.startswith("inversion"), path.name))
    return {
        "quick": document["quick"],
        "tables": [
            as_html(table)
            for table in audit_tables(run.name, run.data_label, Audit(results, (), skipped, {}), headed=False)
        ],
        "pictures": [
            picture(
                path, f"Figure of the audit: {path.stem.replace('_', ', ')}", path.stem.replace("_", ", ")
            )
            for path in figures
            if path.is_file()
        ],
    }


def _card(run: StoredRun) -> Markup:
    path = run.path / "privacy_card.md"
    if not path.is_file():
        return Markup("<p>{}</p>").format(_NOT_YET)
    text = path.read_text(encoding="utf-8")
    body = text.partition("\n")[2] if text.startswith("# ") else text
    return markdown(body.replace("\n## ", "\n### "))
