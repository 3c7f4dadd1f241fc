"""Runs of the command line in a process of their own, watched for what they leave behind."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil
from support import SMALL, Run

from fl_ppae.privacy.ledger import read_ledger

ROUNDS = 8
KEYS = {
    **SMALL,
    "num-server-rounds": ROUNDS,
    "local-epochs": 10,
    "checkpoint-every": 1,
    "target-epsilon": 90.0,
    "worth-joining": "none",
}


class Command:
    """A running `fl-ppae`, with every process and scratch folder seen below it."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log.open("ab")
        self.process = psutil.Popen(
            [sys.executable, "-m", "fl_ppae.cli", *arguments],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.seen: set[psutil.Process] = set()
        self.folders: set[Path] = set()
        self.ports: set[int] = set()

    def look(self) -> list[psutil.Process]:
        below: list[psutil.Process] = (
            self.process.children(recursive=True) if self.process.is_running() else []
        )
        self.seen.update(below)
        for one in below:
            try:
                words = one.cmdline()
            except psutil.Error:
                continue
            if "fl_ppae.simulation.guard" in words:  # it is told the scratch folder
                self.folders.add(Path(words[-1]))
            if any("flower-superlink" in word for word in words) and "--port" in words:
                self.ports.add(int(words[words.index("--port") + 1]))
        return below

    def until_round(self, run: Path, number: int) -> None:
        """Wait until this round is under way."""
        deadline = time.monotonic() + 600
        while True:
            self.look()
            table = run / "rounds.csv"
            if table.exists() and table.read_text().count("\n") >= number:
                return
            assert time.monotonic() < deadline and self.process.poll() is None, "it never got there"
            time.sleep(0.2)

    def ended(self) -> int:
        """The exit code; by then nothing of it is left."""
        deadline = time.monotonic() + 900
        while self.process.poll() is None:
            self.look()
            assert time.monotonic() < deadline, "it never ended"
            time.sleep(0.5)
        self.log.close()
        deadline = time.monotonic() + 30  # of a killed command, the guard ends the rest
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not self.left()
        return int(self.process.returncode)

    def left(self) -> list[object]:
        """Processes, scratch folders and ports that are still there."""
        alive = [one for one in self.seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        listening = {
            one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN
        }
        return [*alive, *(folder for folder in self.folders if folder.exists()), *(self.ports & listening)]


def started(data_file: Path, run: Path, *options: str) -> Command:
    """A run of three hospitals with the keys above."""
    values = {**KEYS, "data-file": str(data_file), "output-dir": str(run)}
    pairs = [part for key, value in values.items() for part in ("-c", f"{key}={value}")]
    return Command(["run", "mnist_iid", "--hospitals", "3", *options, *pairs], run.with_suffix(".log"))


def check_end(run: Path) -> dict[str, Any]:
    """The run is complete, has every round once, and stated no less than its ledgers hold."""
    stored = Run(run)
    assert stored.summary["status"] == "completed"
    assert [row["round"] for row in stored.rows("rounds.csv")] == [str(n) for n in range(1, ROUNDS + 1)]
    for number in range(3):
        rows = [row for row in stored.rows("hospitals.csv") if row["hospital"] == f"hospital-{number}"]
        trained = {int(row["round"]) for row in rows if row["status"] == "trained"}
        events = read_ledger(run / "hospitals" / f"hospital-{number}" / "ledger.jsonl").events
        assert {event.round for event in events} >= trained
    return stored.summary


def go_on(run: Path, *options: str) -> None:
    """Let it go on to its end."""
    command = Command(["run", "--resume", str(run), *options], run.with_suffix(".log"))
    assert command.ended() == 0, run.with_suffix(".log").read_text()[-2000:]
