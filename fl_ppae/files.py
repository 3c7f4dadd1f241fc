"""Writes files so that a crash leaves either the old or the new content."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError
from fl_ppae.paths import path_of


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `content`. On return, content and name are on disk.

    If not `durable`, a crash of this process is safe but one of the machine is not; several times as fast.

    Raises:
        OSError: names `path`, which is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # of a full disk, which names no file
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not durable:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def finite(value: Any) -> Any:
    """`value` with None for NaN and infinity, which JSON lacks; such as the AUC of a split with one class."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_cell(value: Any) -> Any:
    """`value` for a CSV file: a float in six significant digits, empty for None, NaN and infinity."""
    value = finite(value)
    if value is None:
        return ""
    return format(value, ".6g") if isinstance(value, float) else value


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as indented JSON, as `write_atomically`. Refuses NaN and infinity, which JSON lacks."""
    content = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    write_atomically(path, content, durable=durable)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def home() -> Path:
    """The folder of caches, runs and locks: `FL_PPAE_HOME`, or `~/.fl_ppae`. It may not exist yet."""
    chosen = os.environ.get("FL_PPAE_HOME")
    if chosen:
        return path_of(chosen, "FL_PPAE_HOME")
    try:
        return Path.home() / ".fl_ppae"
    except RuntimeError:
        raise UserError("there is no home folder here; set FL_PPAE_HOME to a folder") from None
