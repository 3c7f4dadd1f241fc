"""No command is silent for long, on a pipe or on a terminal, and none says more than it must."""

from __future__ import annotations

import argparse
import itertools
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands.command_line import run
from support import Run

from fl_ppae import cli
from fl_ppae.commands import progress
from fl_ppae.commands.output import show
from fl_ppae.commands.progress import displayed
from fl_ppae.commands.run_progress import RunProgress
from fl_ppae.runs.directory import RunDirectory, create_run_directory
from fl_ppae.steps import count, step, watched_by

LINE = re.compile(r"\[ +\d+ s\] (.*)")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.2)


def slow_work() -> None:
    step("evaluating")
    time.sleep(0.7)


@pytest.mark.usefixtures("impatient")
def test_a_silent_step_is_named_again_and_again_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    with displayed():
        slow_work()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all(re.fullmatch(r"\[   \d s\] evaluating \(\d s\)", line) for line in lines)


def test_without_a_display_the_same_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    slow_work()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("impatient")
def test_a_step_worth_a_line_is_printed_at_once_and_only_once(capsys: pytest.CaptureFixture[str]) -> None:
    with displayed():
        for number in range(3):
            step(f"round {number}", aloud=True)
            step(f"round {number}", aloud=True)
            step("training")
    said = [match[1] for match in map(LINE.fullmatch, capsys.readouterr().err.splitlines()) if match]
    assert said == ["round 0", "round 1", "round 2"]


@pytest.mark.usefixtures("impatient")
def test_nothing_is_said_after_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    with displayed():
        step("drawing")
        show({"a": 1}, [], as_json=True)
        time.sleep(0.5)
    out, err = capsys.readouterr()
    assert (out, err) == ('{\n  "a": 1\n}\n', "")


@pytest.mark.usefixtures("impatient")
def test_a_closed_stderr_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 (closing it fails, too)
    for stderr in (None, full):
        monkeypatch.setattr(sys, "stderr", stderr)
        with displayed():
            slow_work()
    with pytest.raises(OSError, match="No space"):
        full.close()


@pytest.mark.usefixtures("impatient")
def test_every_command_is_displayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(arguments: argparse.Namespace) -> int:
        time.sleep(0.5)
        return 0

    monkeypatch.setattr(cli, "_command", lambda handler: slow)
    assert run("runs") == 0
    assert re.search(r"\[ +\d s\] loading \(\d s\)", capsys.readouterr().err)


DRIVER = """
import sys, time
from fl_ppae.commands.progress import displayed
from fl_ppae.steps import count, step
with displayed():
    step("fitting [x] a decoder")
    count(3, 10)
    time.sleep(2.2)
print("the results")
"""


def test_a_terminal_shows_a_bar_and_leaves_only_the_results() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=theirs, stderr=theirs, env=environment
    ) as one:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert one.returncode == 0
    assert b"fitting [x] a decoder" in shown
    assert b"3/10" in shown
    # The bar's line is erased before the results are written.
    assert shown.endswith(b"\x1b[2Kthe results\r\n")
    assert b" s] " not in shown


class Recorded:
    def __init__(self) -> None:
        self.said: list[tuple[str, bool]] = []
        self.counts: list[tuple[int, int]] = []

    def step(self, text: str, *, aloud: bool = False) -> None:
        if not self.said or self.said[-1][0] != text:
            self.said.append((text, aloud))

    def count(self, done: int, total: int) -> None:
        self.counts.append((done, total))


def test_the_steps_of_a_server_in_another_process_reach_the_command(tmp_path: Path) -> None:
    told = Recorded()
    with watched_by(told):
        following = RunProgress(tmp_path / "run", 2)
    following.poll()
    assert told.said == []
    server = create_run_directory(tmp_path / "run", "tiny")
    with watched_by(server), server.phase("training"):
        following.poll()
        for number in (1, 2):
            with server.phase("evaluating"):
                step("training the classifier lr")
                following.poll()
            server.append_round({"round": number, "hospitals_trained": 3, "accuracy": 0.5})
            count(number, 2)
            following.poll()
    assert told.said == [
        ("training, round 1/2", True),
        ("evaluating, training the classifier lr", True),
        ("round 1/2, 3 hospitals trained, accuracy 0.5", True),
        ("training, round 2/2", False),
        ("evaluating, training the classifier lr", False),
        ("round 2/2, 3 hospitals trained, accuracy 0.5", True),
        ("training", False),
    ]
    assert told.counts == [(1, 2), (2, 2)]


def test_a_phase_inside_another_gives_way_to_it(tmp_path: Path) -> None:
    server = RunDirectory(tmp_path)
    with server.phase("training"):
        with server.phase("evaluating"):
            assert server.summary["phase"] == "evaluating"
        assert server.summary["phase"] == "training"
    with pytest.raises(ValueError, match="stop"), server.phase("training"):
        raise ValueError("stop")
    assert server.summary["phase"] == "training"  # where it failed


def test_a_whole_run_says_what_it_does(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[str] = []
    tell = RunDirectory.step

    def recorded(self: RunDirectory, text: str, *, aloud: bool = False) -> None:
        tell(self, text, aloud=aloud)
        phases.append(self.summary["phase"])

    monkeypatch.setattr(RunDirectory, "step", recorded)
    finished = federate("run", share="updates+encodings")
    said = [phase for phase, _ in itertools.groupby(phases)]
    for expected in (
        "starting, waiting for the hospitals",
        "evaluating, fitting a probe decoder",
        "evaluating, training the classifier lr",
        "encodings, collecting the encodings of the train part",
        "baselines, training the classifier lr",
    ):
        assert expected in said
    assert finished.summary["phase"] == "done"
