"""The charts of a run, over its rounds and of its budgets: what they show, and their SVG for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_ppae.privacy.figures import NOMINAL, is_guarantee, mark
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.reporting.charts import Chart, bar_chart, xy_chart
from fl_ppae.reporting.drawing import Axes, Point, Series
from fl_ppae.reporting.tables import EPSILON
from fl_ppae.runs.stored import StoredRun

_SIMILARITIES = ("cosine", "cosine_centred", "cosine_mismatched")


@dataclass(frozen=True)
class Panel:
    """A chart over the rounds, with options for `draw_xy`. It has no series if nothing was measured."""

    axes: Axes
    series: tuple[Series, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Budgets:
    """Epsilon of each hospital's encoder updates, with options for `draw_bars`."""

    axes: Axes
    spent: Mapping[str, float]
    options: Mapping[str, Any]


def round_charts(run: StoredRun) -> list[Chart]:
    """One chart per panel, except those that were not measured."""
    return [
        xy_chart(panel.series, panel.axes, **panel.options) for panel in round_panels(run) if panel.series
    ]


def budget_chart(run: StoredRun) -> Chart | None:
    """One bar per hospital; None while no hospital has spent anything."""
    budgets = budgets_of(run)
    return bar_chart(budgets.spent, budgets.axes, **budgets.options) if budgets.spent else None


def round_panels(run: StoredRun) -> list[Panel]:
    """Quality, epsilon, reconstruction loss and leakage over the rounds, from `rounds.csv`."""
    rows = run.rows("rounds.csv")
    whole = (1, int(rows[-1]["round"])) if rows else (1, 1)
    doubt = _doubt(run)

    def panel(title: str, label: str, columns: Mapping[str, str], **options: Any) -> Panel:
        series = (
            Series(name, tuple(Point(float(row["round"]), float(row[key])) for row in rows if row.get(key)))
            for key, name in columns.items()
        )
        axes = Axes(title, "round", label, run.data_label)
        return Panel(axes, tuple(one for one in series if one.points), {"whole": whole, **options})

    return [
        panel("Accuracy and AUC", "on the test split (0 to 1)", {"accuracy": "accuracy", "auc": "AUC"}),
        panel(
            "Epsilon of the encoder updates" + doubt,
            "epsilon" + doubt,
            {"epsilon_max": EPSILON + doubt},
            from_zero=True,
            target=_target(run),
        ),
        panel(
            "Reconstruction loss",
            "mean squared error, pixels 0 to 1",
            {"reconstruction_loss": "reconstruction loss"},
            from_zero=True,
        ),
        panel(
            "Leakage: image against encoding",
            "cosine similarity (-1 to 1)",
            {key: key.replace("_", " ") for key in _SIMILARITIES},
        ),
        panel(
            "Leakage: retrieval",
            "share found, top 1 (0 to 1)",
            {"retrieval_top1": "retrieval top 1"},
            from_zero=True,
        ),
    ]


def budgets_of(run: StoredRun) -> Budgets:
    """What each hospital has spent, from the summary, or from `hospitals.csv` while there is none.

    The bar of a refuted claim says so.
    """
    spent = {name: value for name, value in (run.summary.get("epsilon") or {}).items() if value is not None}
    if not spent:
        last = {name: rows[-1]["epsilon"] for name, rows in run.hospitals().items()}
        spent = {name: float(value) for name, value in last.items() if value}
    refuted = run.summary.get("refuted") or {}
    named = {f"{name} (refuted)" if name in refuted else name: value for name, value in spent.items()}
    doubt = _doubt(run)
    axes = Axes("Epsilon of each hospital's encoder updates", EPSILON + doubt, "hospital", run.data_label)
    return Budgets(axes, named, {"target": _target(run), "hollow": not is_guarantee(_basis(run))})


def _doubt(run: StoredRun) -> str:
    """The suffix that marks an epsilon that is no guarantee, or assumes something."""
    doubt = mark(_basis(run))
    return f",{doubt}" if doubt else ""


def _basis(run: StoredRun) -> str:
    """What stands behind the epsilon, by what the rounds so far say."""
    rows = run.rows("rounds.csv")
    basis = run.summary.get("epsilon_max_basis") or (rows[-1].get("epsilon_basis") if rows else "")
    if not basis:  # a run of an earlier version
        scope = SCOPES.get(run.values.get("dp-scope", ""))
        return scope.basis if scope else NOMINAL
    return str(basis)


def _target(run: StoredRun) -> float | None:
    """The budget that the noise was calibrated to; None if the noise was fixed or there was none."""
    values = run.values
    scope = SCOPES.get(values.get("dp-scope", ""))
    if scope is None or not scope.noised or values.get("noise-multiplier") or "target-epsilon" not in values:
        return None
    return float(values["target-epsilon"])
