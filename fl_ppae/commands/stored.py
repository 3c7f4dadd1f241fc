"""`fl-ppae runs`, `show` and `data`: the runs and data files on this machine."""

from __future__ import annotations

import argparse

from fl_ppae.commands.output import show
from fl_ppae.config import RunConfig
from fl_ppae.data.spec import DatasetSpec
from fl_ppae.errors import printable
from fl_ppae.reporting.tables import data_table, notices, run_tables, runs_table
from fl_ppae.runs.stored import all_runs, find_run


def runs(arguments: argparse.Namespace) -> int:
    """List the runs under `FL_PPAE_HOME`."""
    found = all_runs()
    summary_keys = ("accuracy", "auc", "epsilon_max", "epsilon_max_basis", "epsilon_alone_max", "formal")
    document = {
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                "started": run.started,
                "status": run.state,
                "unreadable": run.problems,
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
    tables = [*notices(run), *run_tables(run), f"artefacts: {printable(str(run.path))}"]
    show(run.document(), tables, as_json=arguments.json)
    return 0


def data(arguments: argparse.Namespace) -> int:
    """List the official data files on this machine, and what their readers must know of them."""
    from fl_ppae.data.official import describe_available
    from fl_ppae.data.repeats import examine
    from fl_ppae.data.sources import resolve

    def findings(spec: DatasetSpec) -> list[str]:
        keys = {"dataset": spec.name, "image-size": spec.height, "data-source": spec.publisher}
        config = RunConfig.from_flat(keys)
        return examine(resolve(config)).in_words()

    rows, notes = [], []
    for found in describe_available():
        known = findings(found.spec) if found.state == "present" else []
        rows.append(
            {
                "dataset": found.spec.title,
                "image_shape": list(found.spec.image_shape),
                "classes": found.spec.num_classes,
                "state": found.state,
                "path": str(found.path),
                "detail": found.detail,
                "findings": known,
            }
        )
        if known:
            notes.append(f"{found.spec.title}: {'; '.join(known)}")
    show({"datasets": rows}, [data_table(rows), *notes], as_json=arguments.json)
    return 0
