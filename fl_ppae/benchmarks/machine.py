"""The machine that a measurement was made on, and whether it is busy with something else."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from fl_ppae.hardware import CPU, has_bfloat16

_BUSY = 0.3  # of the cores, by the load average of the last minute


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory and versions. `threads`: of each measured process."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "bfloat16": has_bfloat16(CPU),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": threads,
        "load_at_start": round(psutil.getloadavg()[0], 2),
    }


def busy(found: dict[str, Any]) -> str:
    """A line of warning where the machine had other work at the start; empty where it hadn't."""
    load, cores = found["load_at_start"], found["cores"]
    if load <= _BUSY * cores:
        return ""
    return f"the machine is busy (load {load:.1f} on {cores} cores): times are too long, ratios uncertain"


def _processor() -> str:
    """The model name as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
