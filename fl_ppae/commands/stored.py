"""`fl-ppae runs`, `show` and `data`: the runs and data files on this machine."""

from __future__ import annotations

import argparse

from fl_ppae.commands.output import show
from fl_ppae.reporting.tables import data_table, run_tables, runs_table
from fl_ppae.runs.stored import all_runs, find_run


def runs(arguments: argparse.Namespace) -> int:
    """List the runs under `FL_PPAE_HOME`."""
    found = all_runs()
    summary_keys = ("status", "accuracy", "auc", "epsilon_max", "epsilon_max_basis", "formal")
    document = {
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                "data_source": run.data_label,
                **{key: run.summary.get(key) for key in summary_keys},
            }
            for run in found
        ]
    }
    show(document, [runs_table(found)], as_json=arguments.json)
    return 0


def show_run(arguments: argparse.Namespace) -> int:
    """Show one run's results."""
    run = find_run(arguments.run)
    show(run.document(), [*run_tables(run), f"artefacts: {run.path}"], as_json=arguments.json)
    return 0


def data(arguments: argparse.Namespace) -> int:
    """List the official data files on this machine."""
    from fl_ppae.data.official import describe_available

    rows = [
        {
            "dataset": found.spec.title,
            "image_shape": list(found.spec.image_shape),
            "classes": found.spec.num_classes,
            "state": found.state,
            "path": str(found.path),
            "detail": found.detail,
        }
        for found in describe_available()
    ]
    show({"datasets": rows}, [data_table(rows)], as_json=arguments.json)
    return 0
