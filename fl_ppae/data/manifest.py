"""A manifest: a table of files with their labels and splits, and of patients and hospitals if there are any.

Columns `path`, `label` and `split`; `patient`, `hospital` and `site` if they are there. Others are ignored.
Paths are relative to the manifest and stay below its folder.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fl_ppae.data.listing import Entry, Listing, named
from fl_ppae.data.npz import SPLITS
from fl_ppae.declared import class_name
from fl_ppae.errors import UserError, did_you_mean, printable
from fl_ppae.paths import file_problem

SUFFIXES = (".csv", ".parquet")
NEEDED = ("path", "label", "split")
OPTIONAL = ("patient", "hospital", "site")

Row = Mapping[str, str]


def list_manifest(path: Path) -> Listing:
    """The records of a manifest, in the order of its rows.

    Raises:
        UserError: it can't be read, or a row is wrong; names the row.
    """
    if problem := file_problem(path):
        raise UserError(f"{path}: {problem}")
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    entries = tuple(_entry(path, place, row) for place, row in rows)
    if not entries:
        raise UserError(f"{path}: it has no rows; expected one for each image")
    twice = [name for name, count in Counter(entry.path for entry in entries).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} files stand in several rows, such as {named(twice)}")
    return Listing(path, path.parent, entries)


def _entry(manifest: Path, place: str, row: Row) -> Entry:
    if missing := [column for column in NEEDED if not row[column]]:
        raise UserError(f"{manifest}: {place} has no {named(missing)}")
    name, split = PurePosixPath(row["path"]), row["split"]
    if name.is_absolute() or ".." in name.parts or "\0" in row["path"]:
        raise UserError(
            f"{manifest}: {place} has the path {row['path']}; expected one below the manifest's folder"
        )
    if split not in SPLITS:
        raise UserError(f"{manifest}: {place} has the split {split!r}{did_you_mean(split, SPLITS)}")
    given = {column: row.get(column, "") for column in OPTIONAL}
    return Entry(str(name), split, class_name(row["label"]), **given)


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise UserError(f"{path}: it is not UTF-8 text; save it again as CSV with that encoding")
    # A file's name may have any bytes, so the row that names it may too.
    text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, None)
        if header is None:
            raise UserError(f"{path}: it is empty; expected the columns {', '.join(NEEDED)}")
        columns = _columns(path, header)
        for cells in lines:
            if not cells:
                continue
            place = f"line {lines.line_num}"
            if len(cells) != len(columns):
                raise UserError(f"{path}: {place} has {len(cells)} values for {len(columns)} columns")
            yield place, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: line {lines.line_num} is no CSV ({error})") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    from pyarrow import ArrowException, parquet  # comes with flwr-datasets; a second to import

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError, ValueError) as error:
        reason = printable(str(error).partition("\n")[0])
        raise UserError(f"{path}: it is no sound Parquet file ({reason:.100})") from None
    columns = _columns(path, table.column_names)
    values = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    for number, cells in enumerate(zip(*values, strict=True), 1):
        yield f"row {number}", dict(zip(columns, cells, strict=True))


def _columns(path: Path, names: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in names]
    if missing := [column for column in NEEDED if column not in columns]:
        separator = next((sign for sign in (";", "\t", "|") if len(columns) == 1 and sign in columns[0]), "")
        if separator:
            raise UserError(f"{path}: its columns are separated by {separator!r}; use commas")
        raise UserError(f"{path}: no column {named(missing)}; its columns are {named(columns)}")
    if twice := [name for name, count in Counter(columns).items() if count > 1 and name in NEEDED + OPTIONAL]:
        raise UserError(f"{path}: several columns are called {named(twice)}")
    return columns
