"""The command line with Flower and Ray, and in process: the same bytes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import SMALL

from fl_ppae.files import read_json


def run(data_file: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    values = {**SMALL, "data-file": str(data_file), "output-dir": str(output), "share": "updates+encodings"}
    pairs = [part for key, value in values.items() for part in ("-c", f"{key}={value}")]
    command = [sys.executable, "-m", "fl_ppae.cli", "run", "mnist_iid", "--hospitals", "3", *pairs, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def no_process_left() -> Iterator[None]:
    before = {process.pid for process in psutil.process_iter()}
    yield
    new = [process for process in psutil.process_iter(["name", "status"]) if process.pid not in before]
    names = [process.info["name"] for process in new if process.info["status"] != psutil.STATUS_ZOMBIE]
    assert not [name for name in names if "ray" in name or "flower" in name or "flwr" in name]


@pytest.mark.usefixtures("no_process_left")
def test_a_ray_run_and_an_in_process_run_of_one_seed_are_the_same_bytes(
    data_file: Path, tmp_path: Path
) -> None:
    ray = run(data_file, tmp_path / "ray")
    assert ray.returncode == 0, ray.stderr
    alone = run(data_file, tmp_path / "alone", "--in-process")
    assert alone.returncode == 0, alone.stderr
    for table in ("rounds.csv", "hospitals.csv", "ledger.json"):
        assert (tmp_path / "ray" / table).read_bytes() == (tmp_path / "alone" / table).read_bytes()
    assert read_json(tmp_path / "ray" / "summary.json")["status"] == "completed"
