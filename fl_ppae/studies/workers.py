"""Cells worked off by processes of their own: a cell that fails, or kills its process, ends only itself."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from fl_ppae.errors import UserError

Rows = list[dict[str, Any]]


class NamedCell(Protocol):
    """What a worker needs of a cell."""

    @property
    def name(self) -> str:
        """Unique in its study."""
        ...


Work = Callable[[Any], Rows]


@dataclass(frozen=True)
class Outcome:
    """What came of one cell: its rows, or its error in one line."""

    cell: Any
    rows: Rows = field(default_factory=list)
    error: str = ""


def work_off(cells: Sequence[NamedCell], work: Work, workers: int, log_folder: Path) -> Iterator[Outcome]:
    """`work(cell)` for every cell, `workers` at a time, one thread each; outcomes as they come.

    `work` and the cells are pickled. What the workers print goes to `log_folder`. When the iterator is
    closed, as by Ctrl-C, the workers are stopped at once.
    """
    waiting = list(reversed(cells))
    log_folder.mkdir(parents=True, exist_ok=True)
    with _one_thread_each():
        team = [_Worker(work, log_folder / f"worker-{index}.log") for index in range(workers)]
    try:
        for worker in team:
            if waiting:
                worker.give(waiting.pop())
        while busy := {worker.pipe: worker for worker in team if worker.cell is not None}:
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                yield worker.outcome()
                if not worker.process.is_alive():
                    with _one_thread_each():
                        worker.start()
                if waiting:
                    worker.give(waiting.pop())
    finally:
        for worker in team:
            worker.stop()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, work: Work, log: Path) -> None:
        self._work, self._log = work, log
        self.cell: NamedCell | None = None
        self.start()

    def start(self) -> None:
        """A new process, by spawn: torch's threads don't survive a fork."""
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self._work, self._log))
        self.process.start()
        theirs.close()

    def give(self, cell: NamedCell) -> None:
        self.cell = cell
        self.pipe.send(cell)

    def outcome(self) -> Outcome:
        """Of the cell it was given; a process that died is an error of the cell."""
        cell, self.cell = self.cell, None
        try:
            found: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Outcome(cell, error=f"its process died (exit code {self.process.exitcode})")
        return found

    def stop(self) -> None:
        self.pipe.close()
        if self.cell is not None:
            self.process.terminate()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


def _serve(pipe: Connection, work: Work, log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    with log.open("a", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        logging.getLogger("flwr").setLevel(logging.WARNING)
        while True:
            try:
                cell = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                outcome = Outcome(cell, work(cell))
            except Exception as problem:
                traceback.print_exc()
                outcome = Outcome(cell, error=_one_line(problem))
            try:
                pipe.send(outcome)
            except OSError:  # nobody waits for it any more
                return


def _one_line(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if isinstance(problem, UserError) else f"{type(problem).__name__}: {text}"


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The libraries read these when they are loaded, so they are set before a worker starts."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
