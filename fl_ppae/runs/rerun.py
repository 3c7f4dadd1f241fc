"""How to repeat a run: the command, and the keys that differ from the simulation's values."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig, Scalar
from fl_ppae.errors import UserError
from fl_ppae.runs.stored import StoredRun

_UNIQUE_KEYS = {"output-dir"}  # different for every run


@dataclass(frozen=True)
class Changed:
    """A key with a different value from the simulation's."""

    key: str
    value: Scalar
    default: Scalar
    meaning: str


def changed_keys(run: StoredRun) -> list[Changed]:
    """The keys that differ from the run's simulation, or from the defaults if it is unknown."""
    try:
        base = RunConfig.from_flat(find(str(run.config.get("simulation"))).values).to_flat()
    except UserError:
        base = RunConfig.from_flat({}).to_flat()
    fields = {name.replace("_", "-"): field for name, field in RunConfig.model_fields.items()}
    return [
        Changed(key, value, base[key], str(fields[key].description))
        for key, value in run.values.items()
        if key in base and key not in _UNIQUE_KEYS and value != base[key]
    ]


def rerun_command(run: StoredRun) -> str | None:
    """The command line that repeats a simulation; None if its configuration does not say how."""
    known = all(run.config.get(key) for key in ("simulation", "hospitals", "config"))
    if not known or run.config.get("deployed"):
        return None
    name = shlex.quote(run.config["simulation"])
    parts = [f"fl-ppae run {name} --hospitals {run.config['hospitals']}"]
    for change in changed_keys(run):
        value = str(change.value).lower() if isinstance(change.value, bool) else change.value
        parts.append("-c " + shlex.quote(f"{change.key}={value}"))
    return " \\\n    ".join(parts)
