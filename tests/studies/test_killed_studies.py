"""A study that is killed goes on by cell, and ends with the same table."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies.study_jobs import CELLS

from fl_ppae.studies import table


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_with_the_same_table(tmp_path: Path) -> None:
    """SIGKILL at random moments, the time of two cells apart or so."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    command = [sys.executable, str(tests / "studies" / "study_jobs.py"), str(tmp_path / "study")]
    rng, file, killed = random.Random(3), tmp_path / "study" / table.FILE, 0

    def cells() -> int:
        return table.read(file)["cell"].nunique()

    while killed < 6 and cells() < len(CELLS):
        before = cells()
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        while cells() == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        killed += process.wait() < 0
        counts = table.read(file).groupby("cell").size()
        assert (counts == 2).all(), "a cell has both its rows"
    assert killed == 6
    assert before < len(CELLS)
    subprocess.run(command, env=environment, check=True, timeout=600)
    found = table.read(file)
    assert sorted(found["cell"]) == sorted(2 * [cell.name for cell in CELLS])
    assert file.read_text().count("\n") == 1 + 2 * len(CELLS), "no cell was run twice"
    assert set(found["accuracy"]) == {"0.25"}
