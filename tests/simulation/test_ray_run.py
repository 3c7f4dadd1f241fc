"""The command line with Flower and Ray, and in process: the same bytes, and no process left."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import SMALL

from fl_ppae import cli
from fl_ppae.files import read_json

pytestmark = pytest.mark.xdist_group("superlink")


JOINT = {
    "local-steps": 1,
    "objective": "task",
    "protection": "secagg",
    "noise": "joint",
    "sample-rate": 0.2,
    "honest-hospitals": 2,
}


def command_line(data_file: Path, output: Path, keys: dict[str, Any]) -> list[str]:
    values = {
        **SMALL,
        "data-file": str(data_file),
        "output-dir": str(output),
        "worth-joining": "none",
        **keys,
    }
    pairs = [part for key, value in values.items() for part in ("-c", f"{key}={value}")]
    return ["run", "mnist_iid", "--hospitals", "3", *pairs]


def run(data_file: Path, output: Path, keys: dict[str, Any]) -> set[psutil.Process]:
    """Run to the end; returns every process seen below the command."""
    command = [sys.executable, "-m", "fl_ppae.cli", *command_line(data_file, output, keys)]
    told, seen = output.with_suffix(".log"), set()
    with told.open("w") as log:
        process = psutil.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < deadline:
            seen.update(process.children(recursive=True))
            time.sleep(0.5)
    assert process.poll() == 0, told.read_text()
    return seen


@pytest.mark.parametrize(
    "keys",
    [{"share": "updates+encodings"}, pytest.param(JOINT, marks=pytest.mark.slow)],
    ids=["encodings", "joint noise"],
)
def test_a_ray_run_and_an_in_process_run_of_one_seed_are_the_same_bytes(
    data_file: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    started = run(data_file, tmp_path / "ray", keys)
    assert len(started) > 5, "Flower's and Ray's processes"
    assert not [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert cli.main([*command_line(data_file, tmp_path / "alone", keys), "--in-process"]) == cli.OK
    for table in ("rounds.csv", "hospitals.csv", "ledger.json"):
        assert (tmp_path / "ray" / table).read_bytes() == (tmp_path / "alone" / table).read_bytes()
    assert read_json(tmp_path / "ray" / "summary.json")["status"] == "completed"
