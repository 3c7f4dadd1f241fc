"""Reads the files of a run directory, and says what is wrong with one that can't be read.

Runs of other versions can be read: keys and columns may be missing, or more than this version knows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from fl_ppae.errors import UserError
from fl_ppae.paths import file_problem
from fl_ppae.runs.shapes import Shape

MAX_BYTES = 2**28
"""No table or document of a run comes near this; a larger file is not read at all."""

Row = dict[str, str]
_TEXT_COLUMNS = {"hospital", "status", "reason", "epsilon_basis", "phase"}


class Unreadable(UserError):
    """A file of a run that is missing, damaged or of another kind; says what is wrong, without its name."""


def read_document(path: Path, shape: type[Shape]) -> dict[str, Any]:
    """The JSON object in `path`, whose known keys have the types that `shape` gives them.

    Raises:
        Unreadable: there is none.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        what = str(first["msg"]).removeprefix("Value error, ")
        raise Unreadable(f"{where}: {what[0].lower()}{what[1:]}") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"not valid JSON from line {error.lineno} on; it may be cut short") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise Unreadable("not JSON that a run writes") from None
    document: dict[str, Any] = value
    return document


def read_table(path: Path, columns: Sequence[str], *, growing: bool = False) -> list[Row]:
    """The rows of a CSV file. A column that its version did not have, or its line lacks, is empty.

    Args:
        path: the file.
        columns: those of this version; the first one is in tables of every version.
        growing: the run may be writing a line at this moment; an incomplete last line is left out.

    Raises:
        Unreadable: it is not such a table.
    """
    text = read_text(path)
    if not text.endswith("\n"):
        if not growing:
            raise Unreadable("its last line is incomplete; it may be cut short")
        text = text[: text.rfind("\n") + 1]
        if not text:
            return []
    try:
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError):
        raise Unreadable("not a table of comma-separated values") from None
    if columns[0] not in header:
        raise Unreadable(f"it has no column {columns[0]}")
    rows = []
    for number, line in enumerate(lines, start=2):
        if not line or len(line) > len(header):
            raise Unreadable(f"line {number} has {len(line)} columns instead of {len(header)}")
        row = dict.fromkeys(columns, "") | dict(zip(header, line, strict=False))
        for column in columns:
            if not _fits(column, row[column]):
                raise Unreadable(f"line {number}: {column} is not a number")
        rows.append(row)
    return rows


def check_arrays(path: Path) -> None:
    """Check that `path` is a whole safetensors file, without reading its arrays.

    Raises:
        Unreadable: it is not.
    """
    _check_file(path)
    try:
        with safe_open(path, "numpy"):
            pass
    except (SafetensorError, OSError):
        raise Unreadable("not a safetensors file, or cut short") from None


def _check_file(path: Path) -> int:
    """The size of `path` in bytes, if it is a file with something in it."""
    if problem := file_problem(path):
        raise Unreadable(problem)
    if not (size := path.stat().st_size):
        raise Unreadable("empty")
    return size


def read_text(path: Path) -> str:
    """The text in a file of a run.

    Raises:
        Unreadable: it is missing, or no text, or far too long.
    """
    if (size := _check_file(path)) > MAX_BYTES:
        raise Unreadable(f"{size:,} bytes long, more than a run writes")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise Unreadable("not text") from None


def _fits(column: str, text: str) -> bool:
    if column == "round":
        return text.isdecimal()
    try:
        return column in _TEXT_COLUMNS or not text or float(text) is not None
    except ValueError:
        return False
