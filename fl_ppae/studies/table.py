"""A study's table, `cells.csv`: rows are added durably as each cell ends, and read back to resume.

The file is replaced as a whole, so that it holds all rows of a cell or none. A cell adds one row for each
classifier; a failed cell adds one row with its `error` and no classifier. The last row of a
(cell, classifier) counts, and a success replaces an earlier failure. `columns` describes the columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fl_ppae.errors import UserError
from fl_ppae.files import csv_cell, write_atomically
from fl_ppae.studies.columns import Column, names

FILE = "cells.csv"
_NEEDED = ("cell", "error")


def append(path: Path, columns: tuple[Column, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add the `rows` of a cell to the table and wait until they are on the disk. Missing values stay empty.

    A table that an earlier version began keeps its columns.
    """
    before = _whole_lines(path)
    text = io.StringIO(newline="")
    header = _header(before) if before else names(columns)
    writer = csv.DictWriter(text, header, restval="", extrasaction="ignore", lineterminator="\n")
    if not before:
        writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    write_atomically(path, before + text.getvalue().encode())


def read(path: Path) -> pd.DataFrame:
    """The rows that count, as text, in the order in which their cells first ended; empty without a table.

    Raises:
        UserError: the file is not a study's table.
    """
    try:
        reader = csv.DictReader(io.StringIO(_whole_lines(path).decode(), newline=""))
        header = list(reader.fieldnames or _NEEDED)
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            raise UserError(f"{path}: no column {missing[0]!r}; it is not a study's table")
        # pandas' reader would accept a line that a crash cut short.
        rows = [row for row in reader if None not in row and None not in row.values()]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"{path}: not a readable CSV ({problem})") from None
    return _that_count(pd.DataFrame(rows, columns=header, dtype=str))


def finished(table: pd.DataFrame, *, retry_failed: bool) -> set[str]:
    """Names of the cells that need no further run."""
    return set((succeeded(table) if retry_failed else table)["cell"])


def succeeded(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without an error."""
    return table[table["error"] == ""]


def failures(table: pd.DataFrame) -> list[dict[str, str]]:
    """`cell` and `error` of every row with an error."""
    found: list[dict[str, str]] = table.loc[table["error"] != "", ["cell", "error"]].to_dict("records")
    return found


def _that_count(table: pd.DataFrame) -> pd.DataFrame:
    """Drop failures of cells that later succeeded, and all but the last row of a (cell, classifier)."""
    same = [name for name in ("cell", "classifier") if name in table]
    last = table.groupby(same, sort=False, as_index=False).last()[list(table)]
    ended = last["cell"].isin(succeeded(last)["cell"])
    return last[(last["error"] == "") | ~ended]


def _whole_lines(path: Path) -> bytes:
    """The table up to its last line break: a crash cut short what follows, in earlier versions."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _header(content: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(content.decode(), newline="")))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else csv_cell(value)
