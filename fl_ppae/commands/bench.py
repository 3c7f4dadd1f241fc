"""`fl-ppae bench`: measure this machine and compare each number with its aim."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from flwr.common.logger import update_console_handler
from rich.table import Table

from fl_ppae.benchmarks.machine import busy, machine
from fl_ppae.benchmarks.results import SIZES, Line, Measurement, Size
from fl_ppae.commands.output import notes, show, warn
from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.steps import step

# In this order: the step first, while nothing else has filled memory.
SECTIONS = ("step", "epoch", "federation", "scale", "memory", "accountant", "secagg", "startup")
_IN_MEMORY = ("step", "epoch")  # these need no folder


def command(arguments: argparse.Namespace) -> int:
    """Run the chosen measurements and show them; 0 even if aims are missed."""
    chosen = _chosen(arguments.only)
    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    torch.set_num_threads(arguments.threads)
    found = machine(arguments.threads)
    console = notes()
    if warning := busy(found):
        warn(console, warning)
    measured: dict[str, Measurement] = {}
    with _own_home() as folder:
        for section in chosen:
            step(f"measuring {section}", aloud=True)
            with contextlib.redirect_stdout(sys.stderr):
                measured[section] = _measure(section, SIZES[arguments.size], folder)
    document = {
        "machine": found,
        "busy": bool(warning),
        "size": arguments.size,
        "results": [line.as_dict() for one in measured.values() for line in one.lines],
        "measurements": {section: dict(one.numbers) for section, one in measured.items()},
    }
    show(document, [_table(measured, found)], as_json=arguments.json)
    return 0


def _chosen(listed: str | None) -> list[str]:
    wanted = [name.strip() for name in listed.split(",")] if listed else list(SECTIONS)
    for name in wanted:
        if name not in SECTIONS:
            valid = f"; valid: {', '.join(SECTIONS)}"
            raise UserError(f"--only {name!r} is not a measurement{did_you_mean(name, SECTIONS)}{valid}")
    return [name for name in SECTIONS if name in wanted]


def _measure(section: str, size: Size, folder: Path) -> Measurement:
    module = importlib.import_module(f"fl_ppae.benchmarks.{section}")
    given = (size,) if section in _IN_MEMORY else (size, folder)
    found: Measurement = module.measure(*given)
    return found


@contextlib.contextmanager
def _own_home() -> Iterator[Path]:
    """A temporary folder for data, caches and runs; Flower logs only warnings meanwhile."""
    logger = logging.getLogger("flwr")
    level, propagates, before = logger.level, logger.propagate, os.environ.get("FL_PPAE_HOME")
    update_console_handler(level="WARNING")
    logger.propagate = False
    with tempfile.TemporaryDirectory(prefix="fl-ppae-bench-") as name:
        os.environ["FL_PPAE_HOME"] = str(Path(name) / "home")
        try:
            yield Path(name)
        finally:
            os.environ.pop("FL_PPAE_HOME")
            if before is not None:
                os.environ["FL_PPAE_HOME"] = before
            logger.propagate = propagates
            logger.setLevel(level)


def _table(measured: dict[str, Measurement], found: dict[str, Any]) -> Table:
    bfloat16 = "bfloat16" if found["bfloat16"] else "no bfloat16"
    heading = f"{found['processor']}, {found['cores']} cores, {bfloat16}, torch {found['torch']}"
    table = Table(title=heading, caption=f"{found['threads']} thread(s), load {found['load_at_start']}")
    for name in ("measure", "value", "aim", "met"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for one in measured.values():
        for line in one.lines:
            met = {True: "yes", False: "NO", None: ""}[line.met]
            table.add_row(line.measure, _value(line), "" if line.aim is None else str(line.aim), met)
        table.add_section()
    return table


def _value(line: Line) -> str:
    """At least three digits; a ratio with an x."""
    number = f"{line.value:,.0f}" if line.value >= 1000 else f"{line.value:.3g}"
    return f"{number} {line.unit}" if line.unit else f"{line.value:.2f}x"
