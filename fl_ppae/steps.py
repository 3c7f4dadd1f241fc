"""What a command is doing right now: said anywhere in the code, shown by whoever watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Watcher(Protocol):
    """Is told what is being done."""

    def step(self, text: str, *, aloud: bool = False) -> None:
        """`text` is being done from now on, or nothing if it is empty; `aloud`: it is worth a line."""

    def count(self, done: int, total: int) -> None:
        """`done` of `total` parts are done."""


class _Nobody:
    """Watches where nobody does, such as in a hospital's process."""

    def step(self, text: str, *, aloud: bool = False) -> None:
        """Do nothing."""

    def count(self, done: int, total: int) -> None:
        """Do nothing."""


_watchers: list[Watcher] = [_Nobody()]


def watcher() -> Watcher:
    """Who is told now."""
    return _watchers[-1]


@contextmanager
def watched_by(newest: Watcher) -> Iterator[None]:
    """Tell `newest` instead of whoever was told before."""
    _watchers.append(newest)
    try:
        yield
    finally:
        _watchers.remove(newest)


def step(text: str, *, aloud: bool = False) -> None:
    """Say what is being done from now on, such as "waiting for zenodo.org"; as `Watcher.step`."""
    watcher().step(text, aloud=aloud)


def count(done: int, total: int) -> None:
    """Say that `done` of `total` parts are done."""
    watcher().count(done, total)
