"""Kills whole runs with SIGKILL, or lets their disk fail, and lets each go on to its end; see test_kills.py.

`python kill_driver.py FOLDER kills|disk CASES SEED` prints one JSON document: for each case its run directory
and how each disturbed process ended. A process is forked for every start, so that nothing but the disk
outlives it; it holds the server and all hospitals. Moments of a kill are drawn in turn from the time that an
undisturbed run takes, and from the file operations that it makes (`file_operations`): a kill between two of
them is what can tear something. A third of the cases is disturbed again after it went on.

Each process notes in the case's `journal`, outside the run, what it is about to draw: the truth.
"""

import contextlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.common.logger import update_console_handler
from simulation.file_operations import BROKEN, FULL, READ_ONLY, before_each_operation, faulty_disk
from support import SMALL, quick_runs, simulated_nodes, without_pages, write_npz

from fl_ppae import client_app, server_app
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hospital import release, training
from fl_ppae.hospital.identity import Identity
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.privacy.randomness import Stream, Streams
from fl_ppae.runs.checkpoint import read_checkpoint
from fl_ppae.runs.resuming import find_interrupted
from fl_ppae.runs.status import summary_so_far
from fl_ppae.simulation.in_process import InProcessGrid

ROUNDS = 5
COMMON = {**SMALL, "num-server-rounds": ROUNDS, "target-epsilon": 90.0, "evaluate-every": 2}
KINDS: dict[str, dict[str, Any]] = {
    "updates": {"checkpoint-every": 1},
    "checkpoints far apart": {"checkpoint-every": 3},
    "one step": {"checkpoint-every": 2, "local-steps": 1, "objective": "task", "sample-rate": 0.2},
    "encodings": {
        "checkpoint-every": 1,
        "share": "updates+encodings",
        "encoding-noise-epsilon": 4.0,
        "label-epsilon": 2.0,
        "projection-size": 5,
    },
    "masked": {"checkpoint-every": -1, "protection": "secagg"},
}
Happens = Callable[[int, str], None]


class Case:
    """One run in a folder of its own, with its journal."""

    def __init__(self, folder: Path, kind: str, data: Path) -> None:
        self.folder, self.kind, self.data = folder, kind, data
        self.starts = 0
        folder.mkdir()

    @property
    def run(self) -> Path:
        return self.folder / f"run-{self.starts}"

    def begin(self) -> None:
        values = {**COMMON, **KINDS[self.kind], "data-file": str(self.data)}
        values |= {"resume": str(self.run)} if self.run.exists() else {"output-dir": str(self.run)}
        config = RunConfig.from_flat(values)
        grid = InProcessGrid(client_app.app, config.to_flat(), simulated_nodes(3))
        server_app.serve(grid, config, "tiny")


def take_notes(journal: Path) -> None:
    """Let this process write down what it draws, just before it does, and with which streams."""
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    drawing: dict[int, tuple[Streams, int, int]] = {}  # by the noise stream's id: its owner, hospital, draw
    begun: set[tuple[int, int]] = set()

    def note(what: str, value: float, stream: Stream) -> None:
        _, hospital, draw = drawing[id(stream)]
        if (hospital, draw) not in begun:
            begun.add((hospital, draw))
            os.write(handle, json.dumps([hospital, "stream", draw]).encode() + b"\n")
        os.write(handle, json.dumps([hospital, what, value]).encode() + b"\n")

    def before(module: Any, name: str, taken: Callable[..., None]) -> None:
        wanted = getattr(module, name)

        def noted(*arguments: Any) -> Any:
            taken(*arguments)
            return wanted(*arguments)

        setattr(module, name, noted)

    streams = client_app._streams

    def known(identity: Identity, config: RunConfig, draw: int) -> Streams:
        found = streams(identity, config, draw)
        drawing[id(found.noise)] = found, identity.index, draw
        return found

    client_app._streams = known
    before(training, "add_noise", lambda _sums, std, stream: note("sums", std, stream))
    before(release, "noised", lambda _encodings, multiplier, stream: note("encodings", multiplier, stream))
    before(
        release, "randomised_response", lambda _labels, epsilon, _, stream: note("labels", epsilon, stream)
    )


def dies_before(operation: int) -> Happens:
    """For `before_each_operation`."""

    def happens(number: int, _what: str) -> None:
        if number == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    return happens


def started(case: Case, seconds: float | None = None, happens: Happens = lambda *_: None) -> tuple[str, int]:
    """Start the case's run in a forked child, or let it go on.

    Args:
        seconds: after which it is killed.
        happens: before each of its file operations.

    Returns:
        How it ended ("killed", "done", or in words), and its number of file operations.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        take_notes(case.folder / "journal")
        counted = before_each_operation(case.run, happens)
        said = "done"
        try:
            case.begin()
        except UserError as mistake:
            said = f"refused: {mistake}"
        except (OSError, RuntimeError) as problem:
            said = f"failed: {problem}"
        os.write(writing, f"{counted()} {said}".encode())
        os._exit(0)
    os.close(writing)
    timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL)) if seconds is not None else None
    if timer is not None:
        timer.start()
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    if timer is not None:
        timer.cancel()
        timer.join()
    os.waitpid(child, 0)
    operations, _, how = said.partition(" ")
    return how or "killed", int(operations or 0)


def fell_between_rounds(run: Path) -> bool:
    """Whether no hospital has paid for anything that the server's checkpoint doesn't know."""
    try:
        reached = read_checkpoint(run).round
    except UserError:  # before its first round, or after its end
        return True
    ledgers = run.glob("hospitals/*/ledger.jsonl")
    return all(event.round <= reached for ledger in ledgers for event in read_ledger(ledger).events)


def resumable(path: Path) -> bool:
    try:
        find_interrupted(str(path))
    except UserError as mistake:
        assert "start it again" in str(mistake) or str(mistake).startswith("no run "), mistake
        return False
    return True


Disturbed = Callable[[random.Random, float], dict[str, Any]]


def disturb(case: Case, rng: random.Random, how: Disturbed) -> dict[str, Any]:
    """Disturb the case's run once or twice, and let it go on to its end.

    `how` takes the share of an undisturbed run after which something happens, and returns arguments of
    `started`.
    """
    ends: list[str] = []
    between: list[bool] = []

    def once(share: float) -> None:
        ends.append(started(case, **how(rng, share))[0])
        between.append(fell_between_rounds(case.run))

    once(rng.random())
    again = rng.random() < 1 / 3
    restarted = 0
    while summary_so_far(case.run).get("status") != "completed":
        if case.run.exists() and not resumable(case.run):
            assert not (case.folder / "journal").read_text(), "drawn before the first checkpoint"
            restarted += 1
            case.starts += 1
        if again:
            again = False
            once(rng.random() / 2)
            continue
        how_it_ended, _ = started(case)
        assert how_it_ended == "done", how_it_ended
    return {
        "kind": case.kind,
        "folder": str(case.folder),
        "run": str(case.run),
        "ends": ends,
        "between_rounds": all(between),
        "restarted": restarted,
        "resumed": summary_so_far(case.run).get("resumed", []),
    }


def how_to_disturb(mode: str, number: int, seconds: float, operations: int) -> Disturbed:
    """By mode: killed at a time or a file operation in turn; or the disk fails, for a while or for good."""

    def kill(_: random.Random, share: float) -> dict[str, Any]:
        if number // len(KINDS) % 2 == 0:
            return {"seconds": share * seconds}
        return {"happens": dies_before(max(1, round(share * operations)))}

    def disk(rng: random.Random, share: float) -> dict[str, Any]:
        first = max(1, round(share * operations))
        reason = (FULL, READ_ONLY, BROKEN)[number // len(KINDS) % 3]
        return {"happens": faulty_disk(first, first + rng.choice([0, 5, 40, 10**9]), reason)}

    return {"kills": kill, "disk": disk}[mode]


def main(folder: Path, mode: str, cases: int, seed: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    update_console_handler(level="CRITICAL")
    logging.getLogger("flwr").propagate = False
    patch = pytest.MonkeyPatch()
    quick_runs(patch)
    without_pages(patch)
    data = write_npz(folder / "tiny.npz")
    wholes: dict[str, tuple[float, int]] = {}
    found = []
    for number in range(cases):
        kind = list(KINDS)[number % len(KINDS)]
        if kind not in wholes:
            warm = Case(folder / f"warm {kind}", kind, data)
            with contextlib.redirect_stdout(sys.stderr):
                warm.begin()  # what a first run imports and computes, no child repeats
            start = time.monotonic()
            end, operations = started(whole := Case(folder / f"whole {kind}", kind, data))
            assert end == "done", end
            wholes[kind] = time.monotonic() - start, operations
            found.append({"kind": kind, "folder": str(whole.folder), "run": str(whole.run), "ends": []})
        case = Case(folder / f"case-{number}", kind, data)
        how = how_to_disturb(mode, number, *wholes[kind])
        found.append(disturb(case, random.Random(f"{seed} {number}"), how))
        print(f"{number}: {json.dumps(found[-1])}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
