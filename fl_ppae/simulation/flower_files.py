"""What Flower's commands read and write: a simulation's folder, overrides, and the log of a failed run."""

from __future__ import annotations

import codecs
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from fl_ppae.config import Scalar
from fl_ppae.runs.status import one_line

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def without_mark(directory: Path, scratch: Path) -> Path:
    """The simulation's folder; if its file begins with a byte order mark, which Flower refuses, a copy."""
    content = (directory / "pyproject.toml").read_bytes()
    if not content.startswith(codecs.BOM_UTF8):
        return directory
    copy = Path(shutil.copytree(directory, scratch / "app"))
    (copy / "pyproject.toml").write_bytes(content.removeprefix(codecs.BOM_UTF8))
    return copy


def as_toml(values: Mapping[str, Scalar]) -> str:
    """Flat values as TOML, which spells strings, numbers and booleans as JSON does."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def last_error(log: Path) -> str:
    """The last error in the log: in a frame, as `flwr` draws around its own, or in a line."""
    text = _ANSI.sub("", log.read_text(encoding="utf-8", errors="replace"))
    if frames := re.findall(r"^╭─ Error ─.*?^╰─", text, re.MULTILINE | re.DOTALL):
        return one_line(" ".join(re.findall(r"^│(.*)│$", frames[-1], re.MULTILINE)))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no reason was given"])[-1]
