"""Ctrl-C in real runs in one process: the promised exit code, nothing left behind, and each goes on."""

import os
import signal
import time
from pathlib import Path

import pytest
from simulation.watched_command import check_end, go_on, started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_nothing_behind_and_the_run_goes_on(
    times: int, data_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = started(data_file, run, "--in-process")
    command.until_round(run, 3)
    for _ in range(times):
        os.kill(command.process.pid, signal.SIGINT)
        time.sleep(0.05)
    assert command.ended() == 130
    told = run.with_suffix(".log").read_text()
    assert "Traceback" not in told
    assert ("go on with: fl-ppae run --resume" in told) == (times == 1)
    assert not (run / ".running").exists()
    assert not (run / ".stop").exists()
    go_on(run, "--in-process")
    assert check_end(run)["resumed"]
