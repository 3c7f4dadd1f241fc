"""`fl-ppae report`: one self-contained HTML page for a run or a study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from fl_ppae.commands.output import show
from fl_ppae.errors import UserError
from fl_ppae.runs.stored import find_run
from fl_ppae.steps import step
from fl_ppae.studies.report import find_study, write_study_report


def command(arguments: argparse.Namespace) -> int:
    """Write the report and print its path."""
    output = _checked(arguments.output)
    study = None if arguments.run == "latest" else find_study(arguments.run)
    if study is not None:
        step("drawing the report")
        return _show_path(write_study_report(study, output), {"study_directory": str(study)}, arguments)
    run = find_run(arguments.run)
    # Imported here: it takes seconds, and a wrong name should be reported at once.
    from fl_ppae.reporting.evidence import gather
    from fl_ppae.reporting.run_report import write_run_report
    from fl_ppae.reporting.tables import notices

    step("rebuilding the run's data")
    evidence = gather(run, arguments.data_file)
    step("drawing the report")
    path = write_run_report(run, evidence, output)
    return _show_path(path, {"run_directory": str(run.path)}, arguments, notices(run))


def _show_path(
    path: Path, of: dict[str, str], arguments: argparse.Namespace, first: Sequence[Text] = ()
) -> int:
    document = {"report": str(path), **of, "bytes": path.stat().st_size, "notices": [t.plain for t in first]}
    show(document, [*first, f"report: {path}"], as_json=arguments.json)
    return 0


def _checked(output: str) -> Path | None:
    """The path to write to; None for the default.

    Raises:
        UserError: it is a folder, or its folder does not exist.
    """
    if not output:
        return None
    path = Path(output).expanduser().absolute()
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; name a file, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    return path
