"""How many threads torch and the numerical libraries use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

SKLEARN = "sklearn.linear_model"  # takes seconds to import, and no hospital needs it


def server_threads() -> int:
    """Threads of the server's work: the cores this process may use, in a Ray run and in process.

    `OMP_NUM_THREADS` says otherwise, as it does to the libraries: studies run a process a core.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
