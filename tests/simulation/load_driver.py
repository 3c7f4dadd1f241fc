"""Runs many rounds of many hospitals, of whose replies one in ten fails; prints what is needed to judge it.

`python load_driver.py FOLDER HOSPITALS ROUNDS process|ray` prints one JSON document: the memory (MB) of all
processes of the run after each round, the seconds it took, the processes that are left and the scratch
folders and ports. The run is in FOLDER/run.
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from simulation import load_app
from support import SMALL, quick_runs, simulated_nodes, without_pages, write_npz

from fl_ppae import server_app
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.simulation import superlink
from fl_ppae.simulation.in_process import InProcessGrid

RECORDS = 20  # of each hospital
TRAIN = {
    "noise-multiplier": 4.0,
    "target-epsilon": 500.0,
    "batch-size": 10,
    "encoding-size": 4,
    "worth-joining": "none",
    "checkpoint-every": 0,
}


def values_of(folder: Path, hospitals: int, rounds: int) -> dict[str, Any]:
    total = round(hospitals * RECORDS / 0.9)  # a tenth is the server's
    data = write_npz(folder / "tiny.npz", total)
    where = {"data-file": str(data), "output-dir": str(folder / "run")}
    return {**SMALL, **TRAIN, **where, "num-server-rounds": rounds}


def memory(processes: list[psutil.Process]) -> float:
    """MB that processes hold for themselves; what they share counts once or not at all."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total / 2**20


def listened_to(process: psutil.Process) -> set[int]:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return set()
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


class Watch:
    """Notes the memory whenever a round has been written into the run's table."""

    def __init__(self, run: Path) -> None:
        self.table, self.megabytes, self.seen = run / "rounds.csv", list[float](), set[psutil.Process]()
        self.rounds, self.ports = 0, set[int]()

    def look(self) -> None:
        own = psutil.Process()
        with contextlib.suppress(psutil.Error):
            self.seen.update(own.children(recursive=True))
        rounds = len(self.table.read_bytes().splitlines()) - 1 if self.table.exists() else 0
        if rounds > self.rounds:
            self.rounds = rounds
            alive = [one for one in self.seen if one.is_running()]
            self.megabytes.append(memory([own, *alive]))
            for one in (own, *alive):
                self.ports |= listened_to(one)


def in_process(values: dict[str, Any], hospitals: int, watch: Watch) -> None:
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            watch.look()

    watching = threading.Thread(target=look)
    watching.start()
    config = RunConfig.from_flat(values)
    server_app.serve(
        InProcessGrid(load_app.app, config.to_flat(), simulated_nodes(hospitals)), config, "tiny"
    )
    ended.set()
    watching.join()


def on_ray(folder: Path, values: dict[str, Any], hospitals: int, watch: Watch) -> list[str]:
    """Returns the scratch folders that were made."""
    simulation = folder / "app"
    simulation.mkdir()
    table = (find("mnist_iid").directory / "pyproject.toml").read_text()
    ours = table.replace("fl_ppae.client_app:app", "simulation.load_app:app")
    assert ours != table
    (simulation / "pyproject.toml").write_text(ours)
    tests = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    make, made = tempfile.mkdtemp, list[str]()

    def noted(*arguments: Any, **keys: Any) -> str:
        made.append(make(*arguments, **keys))
        return made[-1]

    superlink.tempfile.mkdtemp = noted  # type: ignore[assignment]
    superlink.run_simulation(superlink.Submission(simulation, values, hospitals, 1), watch.look)
    return made


def main(folder: Path, hospitals: int, rounds: int, kind: str) -> None:
    values, watch = values_of(folder, hospitals, rounds), Watch(folder / "run")
    start = time.monotonic()
    if kind == "ray":
        folders = on_ray(folder, values, hospitals, watch)
    else:
        folders = []
        with pytest.MonkeyPatch.context() as patch:
            quick_runs(patch)
            without_pages(patch)
            in_process(values, hospitals, watch)
    left = [one for one in watch.seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    listening = {one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    found = {
        "seconds": time.monotonic() - start,
        "megabytes": watch.megabytes,
        "started": len(watch.seen),
        "left": [str(one) for one in left],
        "folders left": [folder for folder in folders if Path(folder).exists()],
        "ports": len(watch.ports),
        "ports left": sorted(watch.ports & listening),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
