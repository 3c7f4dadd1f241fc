"""Files that are larger than the memory they may take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_ppae.files import read_json

# In a process of its own, because memory that was freed before could be used again. RLIMIT_DATA counts
# private memory alone: mapped files are shared.
READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path

from fl_ppae.config import RunConfig
from fl_ppae.data.repeats import examine
from fl_ppae.data.sources import resolve

config = RunConfig.from_flat(
    {"dataset": "tissuemnist", "image-size": 128, "data-source": "file", "data-file": sys.argv[1]}
)
status = Path("/proc/self/status").read_text().splitlines()
used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]), -1))
found = examine(resolve(config))
print(found.records["train"], found.records["val"], found.blank["train"])
"""


def large_file(folder: Path, train: int) -> Path:
    """An `.npz` of `train` black images of 128 x 128 pixels, of all classes; it takes little of the disk."""
    arrays = {}
    for split, count in (("train", train), ("test", 60)):
        arrays[f"x_{split}"] = np.broadcast_to(np.uint8(0), (count, 128, 128))
        arrays[f"y_{split}"] = (np.arange(count) % 8).astype(np.uint8)
    np.savez_compressed(folder / "large.npz", **arrays)
    return folder / "large.npz"


def with_little_memory(program: str, *arguments: object) -> str:
    """What a process prints that runs `program` with these arguments."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is of private memory on Linux alone")
def test_a_file_of_160_mb_takes_80_mb_of_memory(tmp_path: Path) -> None:
    said = with_little_memory(READ_WITH_LITTLE_MEMORY, large_file(tmp_path, train=10_000), 80_000_000)
    assert said == "9000 1000 9000\n"


RUN_WITH_LITTLE_MEMORY = """
import resource, sys

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.simulation.in_process import run_in_process

keys = {"dataset": "tissuemnist", "image-size": 128, "data-source": "file", "data-file": sys.argv[1]}
steps = {"num-server-rounds": 1, "local-steps": 1, "batch-size": 64, "evaluate-every": 0}
config = RunConfig.from_flat(keys | steps | {"objective": "task", "target-delta": 1e-6})
resource.setrlimit(resource.RLIMIT_DATA, (2_000_000_000, -1))
print(run_in_process(config, make_deal(resolve(config), config, hospital_names(2)), "large"))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is of private memory on Linux alone")
def test_a_whole_run_over_4_gb_takes_less_than_2_gb(tmp_path: Path) -> None:
    said = with_little_memory(RUN_WITH_LITTLE_MEMORY, large_file(tmp_path, train=250_000))
    assert read_json(Path(said.strip()) / "summary.json")["status"] == "completed"
