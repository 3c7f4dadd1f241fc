"""`fl-ppae compare`: runs side by side."""

from __future__ import annotations

import argparse

from fl_ppae.commands.output import notes, show
from fl_ppae.errors import UserError
from fl_ppae.reporting.comparison import comparison_tables
from fl_ppae.runs.comparison import compare
from fl_ppae.runs.stored import find_run


def command(arguments: argparse.Namespace) -> int:
    """Show which keys differ between runs, and the results of each."""
    runs = [find_run(name) for name in arguments.runs]
    if len({run.path.resolve() for run in runs}) < 2:
        raise UserError("compare needs at least two different runs")
    document = compare(runs)
    show(document, comparison_tables(runs), as_json=arguments.json)
    for warning in document["warnings"]:
        notes().print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    return 0
