"""Kills a hospital with SIGKILL at chosen points between "asked" and "replied"; run by test_crash.py.

`python crash_driver.py FOLDER POINTS SEED` prints one JSON document: for each killed process what it had
drawn and sent, and what its ledger said before and afterwards. A process is forked for each, so that
nothing but the disk outlives it. A point is a line of code: the child kills itself at the k-th executed
line of the project. k is counted from the question, from the payment or from the first noise in turn, and
is uniform over what follows in an undisturbed call: an error after the last two would cost most.
"""

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from support import SMALL, write_npz

from fl_ppae import client_app, message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.hospital import release, training
from fl_ppae.models.build import autoencoder_of
from fl_ppae.privacy.encodings import public_projection
from fl_ppae.privacy.events import Gaussian, PoissonGaussian, RandomisedResponse
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.simulation.in_process import InProcessGrid

PROJECT = str(Path(client_app.__file__).parent)
KEYS = {
    **SMALL,
    "data-file": "",
    "share": "updates+encodings",
    "noise-multiplier": 4.0,
    "target-epsilon": 900.0,
    "encoding-noise-epsilon": 4.0,
    "label-epsilon": 2.0,
    "projection-size": 5,
    "batch-size": 500,  # a sample rate of 1, for which the accountants are quick
    "local-epochs": 2,
    "num-server-rounds": 1,  # encodings leave after the last round
    "checkpoint-every": 0,  # the same round asked for again is trained again
}


class Hospital:
    """One deployed hospital, its node restarted for every question."""

    def __init__(self, folder: Path) -> None:
        self.state, self.site = folder / "state", folder / "site"
        data = write_npz(folder / "own.npz", 130)
        self.node = {
            "partition-id": 0,
            "num-partitions": 1,
            "data-file": str(data),
            "state-dir": str(self.state),
            "allow-unlimited-epsilon": True,
            "max-delta": KEYS["target-delta"],
            "site-dir": str(self.site),
        }
        self.config = RunConfig.from_flat({**KEYS, "data-file": str(data)})
        self.grid = InProcessGrid(client_app.app, self.config.to_flat(), [self.node])
        encoder = autoencoder_of(self.config).encoder
        self.arrays = message_arrays.to_arrays(encoder.state_dict())
        public = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
        self.projection = message_arrays.projection_record(public_projection(public, 5))

    def ask(self, kind: str, **config: Any) -> Message:
        records: dict[str, ArrayRecord | ConfigRecord] = {
            messages.ARRAYS: self.arrays,
            messages.PROJECTION: self.projection,
            messages.CONFIG: ConfigRecord({"run-directory": "", **config}),
        }
        (node,) = self.grid.get_node_ids()
        question = Message(RecordDict(dict(records)), dst_node_id=node, message_type=kind)
        (reply,) = self.grid.send_and_receive([question])
        if reply.has_error():
            raise RuntimeError(reply.error.reason)
        return reply

    def train(self) -> Message:
        return self.ask(messages.TRAIN, **{"server-round": 1})

    def upload(self) -> Message:
        return self.ask(messages.ENCODINGS, part="train", chunk=0)

    def spent(self) -> dict[str, int]:
        """What the ledger says: steps of training, releases of encodings and of labels."""
        path = self.state / "ledger.jsonl"
        events = read_ledger(path).events if path.exists() else ()
        return {
            "steps": sum(event.steps for event in events if isinstance(event, PoissonGaussian)),
            "encodings": sum(isinstance(event, Gaussian) for event in events),
            "labels": sum(isinstance(event, RandomisedResponse) for event in events),
        }


def note(handle: int, module: Any, name: str, mark: bytes) -> None:
    """Let `module.name` write `mark` to the pipe just before it draws."""
    draw = getattr(module, name)

    def noted(*arguments: Any) -> Any:
        os.write(handle, mark)
        return draw(*arguments)

    setattr(module, name, noted)


START, PAID, DRAWN = "start", "paid", "drawn"
PLACES = {"announce": PAID, "add_noise": DRAWN, "noised": DRAWN}  # functions of the project
Point = tuple[str, int] | None  # from where lines are counted, and how many. None: lives


def killed_at(point: Point, question: Callable[[], Message]) -> tuple[str, list[int]]:
    """Ask in a forked child that dies at `point`.

    Returns its marks and, if it lived, how many lines followed each place that one counts from.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        note(writing, training, "add_noise", b"n")
        note(writing, release, "noised", b"e")
        note(writing, release, "randomised_response", b"l")
        lines = 0
        began = {START: 0}

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.startswith(PROJECT):
                return None
            if event == "line":
                lines += 1
                if (place := PLACES.get(frame.f_code.co_name)) is not None:
                    began.setdefault(place, lines)
                if point is not None and lines - began.get(point[0], lines) == point[1] > 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        reply = question()
        sys.settrace(None)
        status = reply.content[messages.CLAIM]["status"]
        os.write(writing, b"r" if status in ("trained", "ready") else b"d")
        following = [lines - began.get(place, lines) for place in (START, PAID, DRAWN)]
        os.write(writing, "".join(f" {number}" for number in following).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    marks, *numbers = said.split(" ")
    return marks, [int(number) for number in numbers]


def warm_up(folder: Path) -> None:
    """Ask another hospital everything once: what a first call imports and computes, no child repeats."""
    folder.mkdir()
    other = Hospital(folder)
    other.train()
    for _ in range(2):
        other.upload()


def main(folder: Path, points: int, seed: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    warm_up(folder / "another")
    hospital = Hospital(folder)
    found = []

    def observe(kind: str, point: Point, question: Callable[[], Message]) -> list[int]:
        before = hospital.spent()
        marks, lines = killed_at(point, question)
        found.append(
            {
                "kind": kind,
                "point": point,
                "marks": marks,
                "before": before,
                "after": hospital.spent(),
                "again": hospital.spent(),
            }
        )
        return lines

    def anywhere(number: int, lines: list[int]) -> Point:
        place = number % 3
        return (START, PAID, DRAWN)[place], rng.randint(1, lines[place])

    observe("train", None, hospital.train)  # the first round of all also makes the data's cache
    for number in range(points):  # one ledger, killed again and again
        if number % 6 == 0:  # it grows, and a call has more lines for it
            lines = observe("train", None, hospital.train)
        observe("train", anywhere(number, lines), hospital.train)
    observe("train", None, hospital.train)
    directories = hospital.state, hospital.site
    for directory in directories:
        shutil.copytree(directory, folder / "kept" / directory.name)
    lines = observe("upload", None, hospital.upload)
    for number in range(points // 4):
        for directory in directories:
            shutil.rmtree(directory)
            shutil.copytree(folder / "kept" / directory.name, directory)
        observe("upload", anywhere(number, lines), hospital.upload)
        observe("upload again", None, hospital.upload)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
