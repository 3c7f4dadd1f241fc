"""A federated run, in process and with Flower and Ray, compared with a bare loop of the same training."""

from __future__ import annotations

import csv
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.benchmarks.workload import config_for, write_images
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.files import read_json
from fl_ppae.hardware import limited_threads, usable_cores
from fl_ppae.hospital.rounds import LocalTraining, train_together
from fl_ppae.hospital.training import round_terms
from fl_ppae.models.build import autoencoder_of, local_model_of
from fl_ppae.privacy.plan import make_plan, planned_terms
from fl_ppae.privacy.randomness import streams
from fl_ppae.runs.directory import create_run_directory
from fl_ppae.server.rounds import train_all_rounds
from fl_ppae.server.session import start_session
from fl_ppae.simulation.in_process import simulated_grid
from fl_ppae.simulation.superlink import Submission, run_simulation

HOSPITALS = 5


def measure(size: Size, folder: Path) -> Measurement:
    """Seconds of the rounds alone, and of everything else, for each way to run."""
    data = write_images(folder, size.records)
    bare = bare_loop(config_for(data, folder / "none", num_server_rounds=size.rounds), HOSPITALS)
    numbers: dict[str, Any] = {"hospitals": HOSPITALS, "rounds": size.rounds, "bare_loop_seconds": bare}
    lines = [Line(f"bare loop: {HOSPITALS} hospitals, {size.rounds} rounds", bare, "s")]
    ways = {"in-process": _in_process, "Flower and Ray": _through_ray}
    if not size.ray:
        del ways["Flower and Ray"]
    for name, run in ways.items():
        config = config_for(data, folder / f"run-{len(numbers)}", num_server_rounds=size.rounds)
        start = time.perf_counter()
        run(config)
        whole = time.perf_counter() - start
        seconds = phases(Path(config.output_dir), HOSPITALS)
        training, outside = seconds["rounds"], whole - sum(seconds.values())
        numbers[name] = {**seconds, "outside": outside, "ratio": training / bare}
        lines += [
            Line(f"{name}: rounds", training, "s"),
            Line(f"{name}: rounds against the bare loop", training / bare, "", Aim(1.15)),
            Line(f"{name}: start-up and end", outside + seconds["starting"], "s"),
        ]
    if size.ray:
        cores = min(usable_cores(), HOSPITALS)  # Ray trains one hospital per core at once
        spread = numbers["Flower and Ray"]["ratio"] * HOSPITALS / math.ceil(HOSPITALS / cores)
        numbers["Flower and Ray"]["ratio_to_loop_over_cores"] = spread
        lines.append(Line(f"Flower and Ray: rounds against the bare loop on {cores} cores", spread))
    return Measurement(numbers, tuple(lines))


def phases(run: Path, hospitals: int) -> dict[str, float]:
    """Seconds of a run by phase; `rounds` is training without the server's evaluations.

    Raises:
        RuntimeError: not all hospitals trained in every round, so the time is meaningless.
    """
    with (run / "rounds.csv").open(encoding="utf-8") as file:
        trained = [int(row["hospitals_trained"]) for row in csv.DictReader(file)]
    if set(trained) != {hospitals}:
        raise RuntimeError(f"{hospitals} hospitals should have trained in every round: {trained} did")
    seconds = dict(read_json(run / "summary.json")["seconds"])
    evaluating = seconds.pop("evaluating", 0.0)
    return {"rounds": seconds.pop("training") - evaluating, "evaluating": evaluating, **seconds}


def bare_loop(config: RunConfig, hospitals: int) -> float:
    """Seconds of the same local training and averaging with nothing else.

    No messages, files, ledger or accountant; data, plan and networks are made before the clock starts.
    """
    held = make_deal(resolve(config), config, hospital_names(hospitals)).train
    plans = make_plan(config, {name: len(records) for name, records in held.items()}).hospitals
    trained = [
        LocalTraining(
            local_model_of(config),
            held[plan.name],
            round_terms(planned_terms(plan, config, "bench"), config),
            partial(streams, config.seed, index),
        )
        for index, plan in enumerate(plans)
    ]
    encoder = autoencoder_of(config).encoder
    with limited_threads(config.threads_per_hospital):
        start = time.perf_counter()
        train_together(trained, encoder, config.num_server_rounds)
        return time.perf_counter() - start


def rounds_in_process(config: RunConfig, hospitals: int) -> None:
    """Start a run and train its rounds, with all messages and files but without the server's evaluations."""
    run = create_run_directory(Path(config.output_dir), "bench")
    with run.phase("starting"):
        session = start_session(simulated_grid(config, hospitals), config, "bench", run)
    with run.phase("training"):
        train_all_rounds(session, local_model_of(config), evaluate=False)
    run.update()


def _in_process(config: RunConfig) -> None:
    rounds_in_process(config, HOSPITALS)


def _through_ray(config: RunConfig) -> None:
    simulation = find("pathmnist_iid")
    values = {key: value for key, value in config.to_flat().items() if key in simulation.values}
    submission = Submission(simulation.directory, values, HOSPITALS, config.threads_per_hospital)
    run_simulation(submission, lambda: None)
