"""A federated run, in process and through Flower and Ray, against a bare loop over the same training."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import torch

from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.benchmarks.workload import config_for, write_images
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.sources import resolve
from fl_ppae.files import read_json
from fl_ppae.hardware import limited_threads, usable_cores
from fl_ppae.hospital.training import round_terms, train_round
from fl_ppae.models.build import autoencoder_of, local_model_of
from fl_ppae.privacy.plan import HospitalPlan, make_plan, planned_terms
from fl_ppae.privacy.randomness import streams
from fl_ppae.runs.directory import create_run_directory
from fl_ppae.server.rounds import train_all_rounds
from fl_ppae.server.session import start_session
from fl_ppae.simulation.in_process import simulated_grid
from fl_ppae.simulation.superlink import Submission, run_simulation

HOSPITALS = 5


def measure(size: Size, folder: Path) -> Measurement:
    """Seconds of the rounds alone, and of all else, by each of the ways."""
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
        cores = min(usable_cores(), HOSPITALS)  # Ray's workers train as many hospitals at once
        spread = numbers["Flower and Ray"]["ratio"] * HOSPITALS / math.ceil(HOSPITALS / cores)
        numbers["Flower and Ray"]["ratio_to_loop_over_cores"] = spread
        lines.append(Line(f"Flower and Ray: rounds against the bare loop on {cores} cores", spread))
    return Measurement(numbers, tuple(lines))


def phases(run: Path, hospitals: int) -> dict[str, float]:
    """Seconds of a run by phase; `rounds` is training without the server's evaluations in it.

    Raises:
        RuntimeError: not all hospitals trained in every round, so that the time says nothing.
    """
    with (run / "rounds.csv").open(encoding="utf-8") as file:
        trained = [int(row["hospitals_trained"]) for row in csv.DictReader(file)]
    if set(trained) != {hospitals}:
        raise RuntimeError(f"{hospitals} hospitals should have trained in every round: {trained} did")
    seconds = dict(read_json(run / "summary.json")["seconds"])
    evaluating = seconds.pop("evaluating", 0.0)
    return {"rounds": seconds.pop("training") - evaluating, "evaluating": evaluating, **seconds}


def bare_loop(config: RunConfig, hospitals: int) -> float:
    """Seconds of the same local training and averaging with nothing around it.

    No messages, files, ledger or accountant; data and plan are made before the clock starts.
    """
    held = make_deal(resolve(config), config, hospital_names(hospitals)).train
    plans = make_plan(config, {name: len(records) for name, records in held.items()}).hospitals
    common = autoencoder_of(config).encoder.state_dict()
    kept: dict[str, tuple[dict[str, torch.Tensor], Any]] = {}
    total = sum(plan.records for plan in plans)
    with limited_threads(config.threads_per_hospital):
        start = time.perf_counter()
        for server_round in range(1, config.num_server_rounds + 1):
            mean = {name: torch.zeros_like(value) for name, value in common.items()}
            for index, plan in enumerate(plans):
                trained, kept[plan.name] = _train(
                    config, plan, held[plan.name], common, kept.get(plan.name), (index, server_round)
                )
                for name, value in trained.items():
                    mean[name] += value * (plan.records / total)
            common = mean
        return time.perf_counter() - start


def _train(
    config: RunConfig,
    plan: HospitalPlan,
    records: HospitalRecords,
    encoder: dict[str, torch.Tensor],
    kept: tuple[dict[str, torch.Tensor], Any] | None,
    key: tuple[int, int],
) -> tuple[dict[str, torch.Tensor], tuple[dict[str, torch.Tensor], Any]]:
    index, server_round = key
    model = local_model_of(config)
    model.encoder.load_state_dict(encoder)
    if kept is not None:
        model.partner.load_state_dict(kept[0])
    terms = round_terms(planned_terms(plan, config, "bench"), config)
    drawn = streams(config.seed, index, server_round)
    optimisers, _ = train_round(model, records, terms, drawn, kept[1] if kept is not None else None)
    return model.encoder.state_dict(), (model.partner.state_dict(), optimisers)


def rounds_in_process(config: RunConfig, hospitals: int) -> None:
    """A run's start and its rounds, all messages and files included, without the server's evaluations."""
    run = create_run_directory(Path(config.output_dir), "bench")
    with run.phase("starting"):
        session = start_session(simulated_grid(config, hospitals), config, "bench", run)
    with run.phase("training"):
        train_all_rounds(session, autoencoder_of(config).encoder, evaluate=False)
    run.update()


def _in_process(config: RunConfig) -> None:
    rounds_in_process(config, HOSPITALS)


def _through_ray(config: RunConfig) -> None:
    simulation = find("pathmnist_iid")
    values = {key: value for key, value in config.to_flat().items() if key in simulation.values}
    submission = Submission(simulation.directory, values, HOSPITALS, config.threads_per_hospital)
    run_simulation(submission, lambda: None)
