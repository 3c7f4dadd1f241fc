"""Where a hospital trains and the server evaluates: the processor, or one CUDA device.

Batches and noise are drawn on the processor on either, from the same streams: a guarantee does not depend
on where the layers run. Results do, in their last digits.
"""

from __future__ import annotations

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

SKLEARN = "sklearn.linear_model"  # takes seconds to import, and no hospital needs it
CPU = torch.device("cpu")
_CUDA = torch.device("cuda", 0)  # Ray shows each of its workers the device that it was given, as number 0


def device_of(choice: str) -> torch.device:
    """The device that the key `device` means here; `auto` is a CUDA device where there is one.

    Raises:
        UserError: `cuda`, and there is none.
    """
    if choice == "cpu":
        return CPU
    if torch.cuda.is_available():
        return _CUDA
    if choice == "cuda":
        raise UserError('device = "cuda": no CUDA device is visible here; use "auto" or "cpu"')
    return CPU


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def exact_float32(device: torch.device) -> None:
    """Float32 products on `device` are float32 from here on, whatever the process was set to.

    In TF32 a clipped gradient is rounded by up to 5e-4 of itself, and its norm is no longer bounded by
    the clipping norm.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: torch.device) -> str:
    """For a report: the CUDA device's own name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor's model as Linux names it, or else what Python knows of it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def server_threads() -> int:
    """Threads of the server's work: the cores this process may use, in a Ray run and in process.

    `OMP_NUM_THREADS` says otherwise, as it does to the libraries: studies run a process a core.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return usable_cores()


@lru_cache(maxsize=2)
def _thread_pools(with_sklearn: bool) -> ThreadpoolController:
    """The libraries loaded so far. Looking for them takes milliseconds, and a round is often shorter."""
    return ThreadpoolController()


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Torch and the BLAS on `threads` threads inside the block, as before after it."""
    before = torch.get_num_threads()
    with _thread_pools(SKLEARN in sys.modules).limit(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
