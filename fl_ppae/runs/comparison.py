"""Compare runs: which keys differ, what the results are, and whether they are comparable at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fl_ppae.privacy.figures import NOMINAL, REFUTED, assumed_honest, is_guarantee, mark
from fl_ppae.runs.stored import RUNNING, StoredRun
from fl_ppae.source_label import is_loud, marked_source

_OF_A_RUN = {"output-dir", "tensorboard", "mlflow-tracking-uri"}  # where results go, not what the run is
_MEASURES = ("accuracy", "auc", "reconstruction_loss", "epsilon_max", "epsilon_alone_max")


def compare(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """The JSON document: each run's results and audit results, the differing keys, and warnings."""
    return {
        "runs": [_run(run) for run in runs],
        "differing_keys": differing_keys(runs),
        "audit": audit_values(runs),
        "warnings": warnings(runs),
    }


def differing_keys(runs: Sequence[StoredRun]) -> dict[str, list[Any]]:
    """Each key that differs between runs, with its value in each; None if a run doesn't have it."""
    values = [
        {"simulation": run.config.get("simulation"), "hospitals": run.config.get("hospitals"), **run.values}
        for run in runs
    ]
    keys = list(dict.fromkeys(key for one in values for key in one if key not in _OF_A_RUN))
    found = {key: [one.get(key) for one in values] for key in keys}
    return {key: row for key, row in found.items() if any(value != row[0] for value in row)}


def warnings(runs: Sequence[StoredRun]) -> list[str]:
    """Why the runs' numbers should not be compared, or not be trusted."""
    found = []
    data = {((run.config.get("data_source") or {}).get("md5"), _source(run)) for run in runs}
    if len(data) > 1:
        found.append(
            "not comparable: the runs used different data: "
            + "; ".join(f"{run.name}: {_source(run)}, MD5 {_md5(run)}" for run in runs)
        )
    found += [f"{run.name}: {marked_source(run.data_label)}" for run in runs if is_loud(run.data_label)]
    found += [f"{run.name}: {file} is unreadable" for run in runs for file in run.problems]
    for run in runs:
        if run.state == RUNNING:
            found.append(f"{run.name} is still running: these are not its results")
        elif run.state != "completed":
            found.append(f"{run.name} did not complete: status {run.state}")
        elif run.epsilon.basis in (NOMINAL, REFUTED):
            found.append(f"{run.name}: epsilon is{mark(run.epsilon.basis)}")
    if len({run.values.get("target-delta") for run in runs}) > 1:
        found.append("epsilons at different deltas are not comparable")
    if len({assumed_honest(run.epsilon.basis) for run in runs}) > 1:
        found.append("epsilons that assume different numbers of honest hospitals are not comparable")
    return found


def audit_values(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """What audits found: one row per attack, threat model and metric; None for a run without that row.

    An inversion value is that of the attacker that did best on its own pairs, which may differ between runs.
    """

    def key_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
        one_of_several = row.get("variant") and not row["attack"].startswith("inversion")
        variant = f" ({row['variant']})" if one_of_several else ""
        return row["attack"], row["threat_model"], row["metric"] + variant

    found = [{key_of(row): row for row in (run.audit or {"results": ()})["results"]} for run in runs]
    keys = list(dict.fromkeys(key for rows in found for key in rows))
    return [
        {
            "attack": attack,
            "threat_model": threat_model,
            "metric": metric,
            "values": [
                None
                if row is None
                else {key: row.get(key) for key in ("value", "low", "high", "variant", "n")}
                for row in (rows.get((attack, threat_model, metric)) for rows in found)
            ],
        }
        for attack, threat_model, metric in keys
    ]


def _run(run: StoredRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "run_directory": str(run.path),
        "status": run.state,
        "data_source": run.data_label,
        "md5": (run.config.get("data_source") or {}).get("md5"),
        **{measure: run.summary.get(measure) for measure in _MEASURES},
        "epsilon_basis": run.epsilon.basis,
        "epsilon_formal": is_guarantee(run.epsilon.basis),
        "formal": run.summary.get("formal"),
        "leakage": run.summary.get("leakage") or {},
        "baselines": run.summary.get("baselines") or {},
    }


def _source(run: StoredRun) -> str:
    return str(
        (run.config.get("data_source") or {}).get("label") or run.summary.get("data_source") or "unknown"
    )


def _md5(run: StoredRun) -> str:
    return str((run.config.get("data_source") or {}).get("md5") or "unknown")
