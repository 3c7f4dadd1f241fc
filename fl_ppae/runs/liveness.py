"""Whether the process that writes a run is still there.

It holds a lock on a file in the run directory from the run's first file to its last. The kernel releases
the lock when the process ends, however it ends, so neither a reused process id nor a changed clock matters.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fl_ppae.errors import UserError

_LOCK = ".running"
_TRIES = 20


@contextlib.contextmanager
def held(run_directory: Path) -> Iterator[None]:
    """Mark the run as alive inside the block.

    Raises:
        UserError: another process has.
    """
    path = run_directory / _LOCK
    with path.open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: `is_alive` can't tell there
            if not _locked(lock):
                raise UserError(f"another process is writing the run {run_directory}; wait for it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(file: IO[str]) -> bool:
    for _ in range(_TRIES):  # whoever looks with `is_alive` holds it for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def is_alive(run_directory: Path) -> bool:
    """Whether a process is writing the run; also True where the file system can't tell."""
    try:
        with (run_directory / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # locked, or without locks
        return True
    return False
