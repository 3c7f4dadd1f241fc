"""Standard streams that are closed, full, or whose reader is gone; signals that end a command.

Results go to stdout: if they can't be written, the command says so. Progress and warnings go to stderr: if
nobody can read them any more, the work goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class OutputLost(Exception):
    """What was written to stdout did not arrive."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause.strerror or cause))
        self.reader_is_gone = isinstance(cause, BrokenPipeError)


class Ended(SystemExit):
    """A signal ends the command; the exit code names it, as a shell does."""


class _Forgiving:
    """A text stream that drops what can't be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def open_closed_ones() -> bool:
    """Open the null device for each standard stream that the caller closed; False if stdout was one.

    Otherwise the next file that is opened would take its number, and receive what is meant for the stream.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (until the process ends)
    return sys.stdout is not None


def forgiving_stderr() -> contextlib.AbstractContextManager[TextIO]:
    """Inside this context, what stderr no longer takes is dropped."""
    return contextlib.redirect_stderr(cast(TextIO, _Forgiving(sys.stderr)))


@contextlib.contextmanager
def flushed_stdout() -> Iterator[None]:
    """Flush stdout at the end.

    Raises:
        OutputLost: it did not take all of it.
    """
    try:
        yield
    finally:
        write("")


def write(text: str) -> None:
    """Write to stdout, now. A letter that its encoding lacks is written as an escape.

    Raises:
        OutputLost: it can't be written.
    """
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as problem:
        # Python flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputLost(problem) from None


def exit_on_signals() -> None:
    """End as on Ctrl-C when terminated or when the terminal is closed, so that what was started ends too.

    A signal that the caller has chosen to ignore, as `nohup` does, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    for other in _ENDING:  # a closing terminal sends more than one
        signal.signal(other, signal.SIG_IGN)
    raise Ended(128 + number)
