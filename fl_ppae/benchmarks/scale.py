"""The same records with 5, 50 and 500 hospitals: the overhead of a hospital."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from fl_ppae.benchmarks.federation import phases, rounds_in_process
from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.benchmarks.workload import config_for, write_images


def measure(size: Size, folder: Path) -> Measurement:
    """Seconds of one round in process, by the total of records and the number of hospitals."""
    numbers: dict[str, Any] = {}
    lines: list[Line] = []
    base = size.hospitals[0]
    rounds: dict[tuple[int, int], float] = {}
    for records, hospitals in itertools.product(size.totals, size.hospitals):
        data = write_images(folder, records, max(size.hospitals))
        output = folder / f"scale-{records}-{hospitals}"
        config = config_for(data, output, num_server_rounds=1)
        rounds_in_process(config, hospitals)
        seconds = phases(output, hospitals)
        rounds[records, hospitals] = seconds["rounds"]
        ratio = seconds["rounds"] / rounds[records, base]
        numbers[f"{records} records, {hospitals} hospitals"] = {**seconds, "ratio": ratio}
        lines.append(Line(f"{records} records, {hospitals} hospitals: a round", seconds["rounds"], "s"))
        if hospitals != base:
            aim = Aim(1.5) if hospitals == max(size.hospitals) else None
            lines.append(Line(f"{records} records: {hospitals} hospitals against {base}", ratio, "", aim))
    return Measurement(numbers, tuple(lines))
