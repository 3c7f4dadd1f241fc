"""Shows what a command is doing, so that none is silent for long: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fl_ppae.steps import watched_by

if TYPE_CHECKING:
    from rich.progress import Progress

SILENCE = 1.5
"""Seconds without a line until there is one: 2 s with what Python takes to start."""


@contextlib.contextmanager
def displayed() -> Iterator[None]:
    """Show on stderr what is being done, from `SILENCE` seconds on.

    A terminal shows a bar. Elsewhere there is a line for each step that is worth one, and a line whenever
    `SILENCE` seconds have passed without any.
    """
    display = _Display(SILENCE, bar=_can_show_a_bar())
    with watched_by(display):
        display.start()
        try:
            yield
        finally:
            display.stop()


def _can_show_a_bar() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class _Display:
    """A watcher with a thread of its own, which speaks when nobody else does."""

    def __init__(self, silence: float, *, bar: bool) -> None:
        self._silence = silence
        self._started = self._since = self._spoke = time.monotonic()
        self._text = "loading"
        self._parts: tuple[int, int] | None = None
        self._bar = bar
        self._shown: Progress | None = None
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """From now on, silence is noticed."""
        self._thread.start()

    def stop(self) -> None:
        """Take the bar away; nothing is printed from now on."""
        self._ended.set()
        self._thread.join()
        self.step("")

    def step(self, text: str, *, aloud: bool = False) -> None:
        """As `Watcher.step`."""
        with self._lock:
            if text == self._text:
                return
            self._text, self._since = text, time.monotonic()
            if not text and self._shown is not None:
                self._shown.stop()
                self._shown = None
            if aloud and not self._bar:
                self._print(text)
            self._refresh()

    def count(self, done: int, total: int) -> None:
        """As `Watcher.count`."""
        with self._lock:
            self._parts = done, total
            self._refresh()

    def _watch(self) -> None:
        while not self._ended.wait(max(0.02, self._spoke + self._silence - time.monotonic())):
            with self._lock:
                if self._text and time.monotonic() - self._spoke >= self._silence:
                    self._speak()

    def _speak(self) -> None:
        if not self._bar:
            self._print(f"{self._text} ({time.monotonic() - self._since:.0f} s)")
            return
        self._spoke = time.monotonic()
        if self._shown is None:
            self._shown = _new_bar()
            self._refresh()

    def _print(self, text: str) -> None:
        now = self._spoke = time.monotonic()
        if sys.stderr is not None:
            # A command does not end because its progress can't be shown, as when stderr is closed or full.
            with contextlib.suppress(OSError, ValueError):
                print(f"[{now - self._started:4.0f} s] {text}", file=sys.stderr, flush=True)

    def _refresh(self) -> None:
        if self._shown is not None:
            done, total = self._parts or (0, None)
            self._shown.update(self._shown.task_ids[0], description=self._text, completed=done, total=total)


def _new_bar() -> Progress:
    """A bar on stderr that moves by itself until it knows how many parts there are."""
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results may go to a file
    )
    bar.add_task("", total=None)
    bar.start()
    return bar
