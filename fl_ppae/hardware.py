"""The hardware that hospitals train on and the server evaluates on: the CPU, or one CUDA device.

Batches and noise are always drawn on the CPU, from the same streams, so no guarantee depends on the
device. The last digits of results do.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

from fl_ppae.errors import UserError

SKLEARN = "sklearn.linear_model"  # takes seconds to import, and hospitals don't need it
CPU = torch.device("cpu")
_CGROUP = Path("/sys/fs/cgroup")
_CUDA = torch.device("cuda", 0)  # Ray shows each worker its own device as number 0


def device_of(choice: str) -> torch.device:
    """The device for a value of the key `device`; `auto` is a CUDA device if there is one.

    Raises:
        UserError: `cuda` without a CUDA device.
    """
    if choice == "cpu":
        return CPU
    if torch.cuda.is_available():
        return _CUDA
    if choice == "cuda":
        raise UserError('device = "cuda": no CUDA device is visible here; use "auto" or "cpu"')
    return CPU


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 faster than float32: a rule by kind, so that all processes agree.

    A processor with AMX does, and an AMD EPYC with AVX512-bf16. On a Xeon with AVX512-bf16 alone, a DP step
    took 1.24 times as long in bfloat16 as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and processor_name().startswith("AMD")


def uses_bfloat16(precision: str, device: torch.device = CPU) -> bool:
    """What the key `precision` means on `device`."""
    return precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))


def exact_float32(device: torch.device) -> None:
    """Compute float32 products on `device` in float32 from here on, not in TF32.

    TF32 rounds a clipped gradient by up to 5e-4 of itself, so that the clipping norm no longer bounds it.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: torch.device) -> str:
    """The name of the CUDA device, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container in `cgroup`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *(math.ceil(quota) for quota in _quotas(cgroup))])


def _quotas(cgroup: Path) -> Iterator[float]:
    """The quota of CPU time, in cores, of version 2 or 1 of control groups; none if nothing is limited."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text(encoding="ascii") for name in names).split()
            if int(quota) > 0:  # "max" or -1: no limit
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue


def processor_name() -> str:
    """The processor's model name from Linux, or what Python reports elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def server_threads() -> int:
    """Threads of the server's work: `OMP_NUM_THREADS` if set, else the cores that this process may use.

    Studies set it to 1, because they run one process per core.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return usable_cores()


@lru_cache(maxsize=2)
def _thread_pools(with_sklearn: bool) -> ThreadpoolController:
    """The thread pools of the libraries loaded so far. Finding them takes longer than a short round."""
    return ThreadpoolController()


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit torch and the BLAS to `threads` threads inside the block."""
    before = torch.get_num_threads()
    with _thread_pools(SKLEARN in sys.modules).limit(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
