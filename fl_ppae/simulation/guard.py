"""Ends every process of a run, and removes its scratch folder, once the `fl-ppae` that started it is gone.

Run as a process of its own, holding the read end of a pipe whose write end only `fl-ppae` has. The pipe
closes when `fl-ppae` is done with the run, and just as well when it is interrupted or killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import psutil

MARK = "FL_PPAE_RUN"
"""Environment variable, set to a value of its own for each run, that every process of the run inherits."""

_GRACE_SECONDS = 3.0


def start(mark: str, scratch: str) -> subprocess.Popen[bytes]:
    """Start the guard of the run marked `mark`; closing its stdin makes it sweep and end."""
    return subprocess.Popen(
        [sys.executable, "-m", "fl_ppae.simulation.guard", mark, scratch],
        stdin=subprocess.PIPE,
        start_new_session=True,  # out of reach of the terminal's Ctrl-C
    )


def run_processes(mark: str) -> set[psutil.Process]:
    """The living processes of a run: those that carry its mark, and all their descendants.

    Descendants, because Ray's workers overwrite their own environment with a process title.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.add(process)
                found.update(process.children(recursive=True))
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
            continue
    return {process for process in found if _is_alive(process)}


def sweep(mark: str) -> None:
    """End a run's processes: politely, and after a few seconds by force."""
    deadline = time.monotonic() + _GRACE_SECONDS
    processes = run_processes(mark)
    _signal(processes, force=False)
    while processes:
        time.sleep(0.05)
        # What was seen once stays watched: its parent may have ended before it did.
        processes = {process for process in processes if _is_alive(process)} | run_processes(mark)
        if time.monotonic() > deadline:
            _signal(processes, force=True)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(processes: set[psutil.Process], *, force: bool) -> None:
    for process in processes:
        try:
            process.kill() if force else process.terminate()
        except psutil.Error:
            continue


if __name__ == "__main__":
    os.environ.pop(MARK, None)
    sys.stdin.read()
    sweep(sys.argv[1])
    shutil.rmtree(sys.argv[2], ignore_errors=True)
