"""Files that are larger than the memory they may take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def read_with(memory: int, train: int, folder: Path) -> str:
    """What a process prints that reads a file of `train` images of 128 x 128 pixels with so much memory."""
    arrays = {}
    for split, count in (("train", train), ("test", 3)):
        arrays[f"x_{split}"] = np.broadcast_to(np.uint8(0), (count, 128, 128))
        arrays[f"y_{split}"] = np.zeros(count, np.uint8)
    np.savez_compressed(folder / "large.npz", **arrays)
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(folder / "large.npz"), str(memory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is of private memory on Linux alone")
def test_a_file_of_160_mb_takes_80_mb_of_memory(tmp_path: Path) -> None:
    assert read_with(80_000_000, 10_000, tmp_path) == "9000 1000 9000\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is of private memory on Linux alone")
def test_a_file_of_4_gb_takes_no_more(tmp_path: Path) -> None:
    assert read_with(80_000_000, 250_000, tmp_path) == "225000 25000 225000\n"
