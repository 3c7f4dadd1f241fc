"""`fl-ppae recommend --joining`: should a hospital join, and with what settings."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.text import Text

from fl_ppae.commands.output import show
from fl_ppae.errors import UserError
from fl_ppae.files import finite

NOTE = (
    "Measured on one data set, one hospital a seed; your images, sizes and splits may differ. Joint noise "
    "assumes that 3 of 5, 16 of 20 or 80 of 100 hospitals are honest."
)


def command(arguments: argparse.Namespace) -> int:
    """Answer from the table of a value study; 0 for yes, otherwise 1.

    Raises:
        UserError: an argument is out of range, or the study has no setting up to this epsilon.
    """
    from fl_ppae.studies import table
    from fl_ppae.studies.joining import YES, Asked, advice
    from fl_ppae.studies.study import study_folder
    from fl_ppae.studies.value_grid import settings_of
    from fl_ppae.studies.verdict import difference

    if arguments.joining < 2 or arguments.public < 0 or not arguments.max_epsilon > 0:
        raise UserError("--joining takes at least 2 hospitals, --public 0 or more, --max-epsilon more than 0")
    folder = study_folder(arguments.study, "value")
    rows = table.read(folder / table.FILE)
    if rows.empty or "public_records" not in rows:
        raise UserError(f"{folder} holds no value study; make one with: fl-ppae study value")
    found = advice(rows, Asked(arguments.joining, arguments.public, arguments.max_epsilon))
    if found is None:
        raise UserError(f"{folder}: no setting with an epsilon up to {arguments.max_epsilon:g} has finished")
    verdict, keys = found.verdict, settings_of(found.row)
    line = f"fl-ppae run bloodmnist_joint --hospitals {found.row['hospitals']} " + " ".join(
        f"-c {key}={value}" for key, value in keys.items() if key != "dataset"
    )
    gain = difference(verdict.value, verdict.low, verdict.high)
    why = (
        f"Join? {found.answer.capitalize()}: gain {gain} over {verdict.n} seeds "
        f"in the nearest setting measured: {verdict.setting} ({found.row['source']})."
    )
    document = {"answer": found.answer, "why": why, "command": line, "note": NOTE, **finite(asdict(verdict))}
    style = "bold green" if found.answer == YES else "bold yellow"
    show(document, [Text(why, style=style), Text(line), Text(NOTE)], as_json=arguments.json)
    return 0 if found.answer == YES else 1
