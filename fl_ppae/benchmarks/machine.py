"""Describes the machine of a measurement, and whether it is busy with something else."""

from __future__ import annotations

import platform
from typing import Any

import psutil
import torch

from fl_ppae.hardware import CPU, has_bfloat16, processor_name, usable_cores

_BUSY = 0.3  # of the cores, by the load average over the last minute


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory and versions. `threads`: per measured process."""
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "bfloat16": has_bfloat16(CPU),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": threads,
        "load_at_start": round(psutil.getloadavg()[0], 2),
    }


def busy(found: dict[str, Any]) -> str:
    """A warning if the machine had other work at the start; else empty."""
    load, cores = found["load_at_start"], found["cores"]
    if load <= _BUSY * cores:
        return ""
    return f"the machine is busy (load {load:.1f} on {cores} cores): times are too long, ratios uncertain"
