"""The time from the start of a process to the first local step of an in-process run."""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from fl_ppae.benchmarks.own_process import last_number
from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.benchmarks.workload import config_for, write_images
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve

_REPEATS = 3


def measure(size: Size, folder: Path) -> Measurement:
    """Median seconds over fresh processes. The data cache exists, as in every run but the first."""
    data = write_images(folder, size.records)
    resolve(config_for(data, folder))
    starts = (folder / f"start-{number}" for number in range(_REPEATS))
    seconds = [last_number(__name__, str(data), str(output)) for output in starts]
    middle = statistics.median(seconds)
    return Measurement({"seconds": seconds}, (Line("start-up to the first local step", middle, "s", Aim(6)),))


def _until_first_step(data: Path, output: Path) -> None:
    """Start a run, and end this process as soon as the first hospital trains."""
    from fl_ppae.hospital import updates
    from fl_ppae.simulation.in_process import run_in_process

    def stop(*_: Any, **__: Any) -> None:
        print(time.time() - psutil.Process().create_time(), flush=True)
        os._exit(0)

    updates.train_round = stop  # type: ignore[assignment]
    config = config_for(data, output)
    run_in_process(config, make_deal(resolve(config), config, hospital_names(5)), "bench")


if __name__ == "__main__":
    _until_first_step(Path(sys.argv[1]), Path(sys.argv[2]))
