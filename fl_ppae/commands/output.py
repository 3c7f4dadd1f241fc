"""Where a command writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, RenderableType

from fl_ppae.commands.streams import write
from fl_ppae.files import finite
from fl_ppae.steps import step

_WIDTH_OF_A_FILE = 140


def results() -> Console:
    """The console for results; wide enough if stdout is a file or a pipe."""
    return Console(width=_width(sys.stdout), markup=False, emoji=False)


def notes() -> Console:
    """The console for progress and warnings."""
    return Console(stderr=True, width=_width(sys.stderr), markup=False, emoji=False)


def _width(stream: TextIO) -> int | None:
    """None for that of the terminal, as long as the environment does not give it none."""
    wide = stream.isatty() and os.environ.get("COLUMNS", "1") != "0"
    return None if wide else _WIDTH_OF_A_FILE


def warn(console: Console, text: str) -> None:
    """Print a warning."""
    console.print(f"warning: {text}", style="yellow", highlight=False)


def show(document: dict[str, Any], tables: Iterable[RenderableType], *, as_json: bool) -> None:
    """Write one JSON document, or the tables. Progress ends here."""
    step("")
    if as_json:
        write(json.dumps(finite(document), indent=2, allow_nan=False) + "\n")
        return
    console = results()
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    write(captured.get())
