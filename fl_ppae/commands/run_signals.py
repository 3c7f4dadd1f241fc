"""Signals to a run: the first lets it end after its round, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from fl_ppae.commands.streams import Ended
from fl_ppae.runs.status import summary_so_far
from fl_ppae.runs.stopping import tell_to_stop

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IN_ROUNDS = ("training", "evaluating")  # phases of a run that ends in a round


class EndsAfterRound:
    """Inside this context, a first Ctrl-C, SIGTERM or SIGHUP lets a run end after the round under way.

    Outside its rounds a run has nothing to finish, and ends at once. A signal that the caller has chosen to
    ignore, as `nohup` does, stays ignored.

    Attributes:
        number: the first signal; None if there was none.
    """

    def __init__(self, run_directory: Path) -> None:
        self._run_directory = run_directory
        self._before: dict[int, Any] = {}
        self.number: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            self._before = {number: old for number, old in handlers.items() if old is not signal.SIG_IGN}
            for number in self._before:
                signal.signal(number, self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, old in self._before.items():
            signal.signal(number, old)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        phase = str(summary_so_far(self._run_directory).get("phase"))
        if not phase.startswith(_IN_ROUNDS):
            old: Callable[[int, FrameType | None], Any] = self._before[number]
            if callable(old):
                old(number, frame)
            raise Ended(128 + number)
        self.number = number
        tell_to_stop(self._run_directory)
        with contextlib.suppress(OSError):  # `print` may have been interrupted itself
            os.write(2, b"\nfl-ppae: the run ends after this round; once more to end it now\n")
