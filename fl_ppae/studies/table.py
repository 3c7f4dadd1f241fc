"""A study's table, `cells.csv`: rows are appended durably as each cell ends, and read back to resume.

A cell adds one row for each classifier; a failed cell adds one row with its `error` and no classifier. The
last row of a (cell, classifier) counts, and a success replaces an earlier failure. `columns` describes the
columns.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fl_ppae.errors import UserError
from fl_ppae.files import csv_cell
from fl_ppae.studies.columns import Column, names

FILE = "cells.csv"
_NEEDED = ("cell", "error")


def append(path: Path, columns: tuple[Column, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add `rows` to the table and wait until they are on the disk. Missing values stay empty.

    A table that an earlier version began keeps its columns.
    """
    new = not path.exists() or path.stat().st_size == 0
    _end_last_line(path)
    with path.open("a", newline="", encoding="utf-8") as file:
        header = names(columns) if new else _header(path)
        writer = csv.DictWriter(file, header, restval="", extrasaction="ignore", lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> pd.DataFrame:
    """The rows that count, as text, in the order in which their cells first ended; empty without a table.

    Raises:
        UserError: the file is not a study's table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or _NEEDED)
            missing = [name for name in _NEEDED if name not in header]
            if missing:
                raise UserError(f"{path}: no column {missing[0]!r}; it is not a study's table")
            # pandas' reader would accept a line that a crash cut short.
            rows = [row for row in reader if None not in row and None not in row.values()]
    except FileNotFoundError:
        return pd.DataFrame(columns=list(_NEEDED))
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


def _end_last_line(path: Path) -> None:
    """End a line that a crash cut short, so that it does not run into the next; `read` skips it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else csv_cell(value)
