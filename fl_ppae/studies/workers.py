"""Runs cells in worker processes: a cell that fails or kills its process does not affect the others."""

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
    """What a worker needs to know about a cell."""

    @property
    def name(self) -> str:
        """Unique in its study."""
        ...


Work = Callable[[Any], Rows]


@dataclass(frozen=True)
class Outcome:
    """The result of one cell: its rows, or a one-line error."""

    cell: Any
    rows: Rows = field(default_factory=list)
    error: str = ""


def run_cells(cells: Sequence[NamedCell], work: Work, workers: int, log_folder: Path) -> Iterator[Outcome]:
    """Run `work(cell)` for every cell, `workers` at a time with one thread each; yield outcomes as they end.

    `work` and the cells are pickled. The workers print to files in `log_folder`. Closing the iterator, as
    Ctrl-C does, stops the workers at once.
    """
    waiting = list(reversed(cells))
    log_folder.mkdir(parents=True, exist_ok=True)
    with _one_thread_each():
        pool = [_Worker(work, log_folder / f"worker-{index}.log") for index in range(workers)]
    try:
        for worker in pool:
            if waiting:
                worker.assign(waiting.pop())
        while busy := {worker.pipe: worker for worker in pool if worker.cell is not None}:
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                yield worker.receive()
                if not worker.process.is_alive():
                    with _one_thread_each():
                        worker.start()
                if waiting:
                    worker.assign(waiting.pop())
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """A worker process and the pipe to it."""

    def __init__(self, work: Work, log: Path) -> None:
        self._work, self._log = work, log
        self.cell: NamedCell | None = None
        self.start()

    def start(self) -> None:
        """Spawn a new process; torch's threads don't survive a fork."""
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self._work, self._log))
        self.process.start()
        theirs.close()

    def assign(self, cell: NamedCell) -> None:
        self.cell = cell
        self.pipe.send(cell)

    def receive(self) -> Outcome:
        """The outcome of the assigned cell; if the process died, that is the cell's error."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
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
            except OSError:  # the parent has closed the pipe
                return


def _one_line(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if isinstance(problem, UserError) else f"{type(problem).__name__}: {text}"


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit new workers to one thread; the libraries read these variables when they are loaded."""
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
