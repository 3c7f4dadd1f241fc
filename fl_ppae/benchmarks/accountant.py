"""Accounting time: a plan for 500 unequal hospitals, and each hospital's epsilon after every round."""

from __future__ import annotations

import time
from pathlib import Path

from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.benchmarks.workload import config_for
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.plan import make_plan

_ROUNDS = 10
_MEAN_RECORDS = 180  # PathMNIST's 90,000 over 500 hospitals
_BATCH = 64


def measure(size: Size, folder: Path) -> Measurement:
    """Time a plan and its epsilons. Sizes grow evenly from 0.1 to 2 times the mean: no two are equal."""
    hospitals = max(size.hospitals)
    step = 1.9 * _MEAN_RECORDS / hospitals
    records = {f"hospital-{n}": round(0.1 * _MEAN_RECORDS + step * n) for n in range(hospitals)}
    config = config_for(folder / "none.npz", folder, num_server_rounds=_ROUNDS, batch_size=_BATCH)
    start = time.perf_counter()
    plan = make_plan(config, records)
    planning = time.perf_counter() - start
    start = time.perf_counter()
    for server_round in range(1, _ROUNDS + 1):
        for hospital in plan.hospitals:
            events = [hospital.event(number) for number in range(1, server_round + 1)]
            epsilon([event for event in events if event is not None], config.target_delta)
    each = 1000 * (time.perf_counter() - start) / (hospitals * _ROUNDS)
    distinct = len({(one.noise_multiplier, one.sample_rate, one.steps_per_round) for one in plan.hospitals})
    numbers = {
        "hospitals": hospitals,
        "rounds": _ROUNDS,
        "distinct_sizes": len(set(records.values())),
        "distinct_plans": distinct,
        "planning_seconds": planning,
        "milliseconds_per_hospital_and_round": each,
    }
    lines = (
        Line(f"planning {hospitals} unequal hospitals ({distinct} distinct plans)", planning, "s", Aim(60)),
        Line(f"accountant per hospital and round, {hospitals} hospitals", each, "ms", Aim(5)),
    )
    return Measurement(numbers, lines)
