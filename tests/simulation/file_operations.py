"""Counts what this process does to files, and lets something happen in the middle of it."""

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR
_FREEING = ("os.remove", "os.rmdir", "os.rename")  # what a full disk still does
FULL, READ_ONLY, BROKEN = errno.ENOSPC, errno.EROFS, errno.EIO


def before_each_operation(folder: Path, happens: Callable[[int, str], None]) -> Callable[[], int]:
    """Let `happens(number, what)` be called before each operation on files under `folder`, for good.

    Operations are opening a file for writing, renaming or removing one, making or removing a folder, and
    waiting until a file is on the disk. Returns what counts them.
    """
    done, wait = 0, os.fsync

    def one_more(what: str) -> None:
        nonlocal done
        done += 1
        happens(done, what)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        )
        if changes and str(arguments[0]).startswith(str(folder)):
            one_more(event)

    def fsync(handle: int) -> None:
        try:
            one_more("fsync")
        except OSError:
            if stat.S_ISREG(os.fstat(handle).st_mode):  # not all has arrived
                os.truncate(f"/proc/self/fd/{handle}", max(0, os.fstat(handle).st_size - 20))
            raise
        wait(handle)

    sys.addaudithook(hook)
    os.fsync = fsync
    return lambda: done


def faulty_disk(first: int, last: int, reason: int) -> Callable[[int, str], None]:
    """For `before_each_operation`: from the first to the last operation the disk fails for this reason."""

    def happens(number: int, what: str) -> None:
        if first <= number <= last and not (reason == FULL and what in _FREEING):
            raise OSError(reason, os.strerror(reason))

    return happens
