"""Ends every process of a run and removes its scratch folder, once the `fl-ppae` that started it is gone.

The guard is a separate process that reads from a pipe; only `fl-ppae` can write to it. The pipe closes when
`fl-ppae` is done with the run, and also when it is interrupted or killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import psutil

from fl_ppae.environment import for_run

MARK = "FL_PPAE_RUN"
"""Environment variable with a different value for each run, which every process of the run inherits."""

_GRACE_SECONDS = 3.0


def start(mark: str, scratch: str) -> subprocess.Popen[bytes]:
    """Start the guard of the run marked `mark`; close its stdin to end the run's processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "fl_ppae.simulation.guard", mark, scratch],
        stdin=subprocess.PIPE,
        env=for_run(tracked=False),
        cwd="/",
        start_new_session=True,  # out of reach of the terminal's Ctrl-C
    )


def run_processes(mark: str) -> set[psutil.Process]:
    """The living processes of a run: those with its mark, and all their descendants.

    Descendants, because Ray's workers overwrite their own environment with a process title.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.add(process)
                found.update(process.children(recursive=True))
        except (psutil.Error, OSError):  # it has ended, or belongs to another user
            continue
    return {process for process in found if _is_alive(process)}


def sweep(mark: str) -> None:
    """End a run's processes: by SIGTERM, and after a few seconds by SIGKILL."""
    deadline = time.monotonic() + _GRACE_SECONDS
    processes = run_processes(mark)
    _signal(processes, force=False)
    while processes:
        time.sleep(0.05)
        # Keep watching what was seen once: its parent may have ended first.
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
