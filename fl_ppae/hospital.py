"""One hospital as its node sees it: who it is, its records, its state directory, what it refuses.

In a simulation the simulator deals the records out and keeps the state under the run's directory.
Deployed, a node's own configuration names its data file and its state directory, and no message does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fl_ppae.adversary import held_by
from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.cache import Dataset, open_cache
from fl_ppae.data.hospital import HospitalRecords, Records
from fl_ppae.data.registry import DatasetSpec
from fl_ppae.data.sources import resolve
from fl_ppae.devices import device_of
from fl_ppae.errors import UserError
from fl_ppae.files import read_json, write_json
from fl_ppae.hospital_state import HospitalState
from fl_ppae.paths import home
from fl_ppae.planning import HospitalPlan, plan_hospital, upload_terms
from fl_ppae.privacy.ledger import Terms
from fl_ppae.privacy.scopes import SCOPES

NodeConfig = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Identity:
    """Who a node is.

    Attributes:
        index: its place among the hospitals, from 0; sums and randomness go by it.
        hospitals: size of the federation.
        deployed: True if it has a data file of its own.
    """

    name: str
    index: int
    hospitals: int
    deployed: bool


@dataclass(frozen=True)
class Hospital:
    """A hospital with its records at hand. `train` and `test` are parts of its own data.

    Of an adversary that poisons data, `train` is what it made of them.
    """

    identity: Identity
    spec: DatasetSpec
    train: Records
    test: HospitalRecords
    state: HospitalState


def identify(node: NodeConfig) -> Identity:
    """Who a node is, from its own configuration.

    Raises:
        UserError: it has no partition-id or num-partitions.
    """
    try:
        index, hospitals = int(node["partition-id"]), int(node["num-partitions"])
    except KeyError as error:
        raise UserError(
            f"the node config has no {error.args[0]}; start the SuperNode with "
            '--node-config "partition-id=0 num-partitions=2"'
        ) from None
    return Identity(str(node.get("hospital", f"hospital-{index}")), index, hospitals, "data-file" in node)


def deal_out(
    run_directory: Path, cache: Path, name: str, train: np.ndarray, test: np.ndarray, shift_seed: int | None
) -> None:
    """Simulator only: give hospital `name` its records, as indices into the mapped data set.

    `shift_seed` seeds the hospital's acquisition shift; None for none.
    """
    directory = run_directory / "hospitals" / name
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "train_records.npy", train)
    np.save(directory / "test_records.npy", test)
    write_json(directory / "records.json", {"cache": str(cache), "shift_seed": shift_seed})


def open_hospital(identity: Identity, node: NodeConfig, config: RunConfig, run_directory: str) -> Hospital:
    """The hospital's records and state directory.

    `run_directory` comes with the message and is used in a simulation only.

    Raises:
        UserError: a deployed hospital's data file is not usable.
    """
    if identity.deployed:
        return _open_deployed(identity, node, config)
    directory = Path(run_directory) / "hospitals" / identity.name
    dealt = read_json(directory / "records.json")
    cache = Path(dealt["cache"])
    dataset = _mapped(cache, (cache / "meta.json").stat().st_mtime_ns)
    seed = dealt["shift_seed"]
    shift = NO_SHIFT if seed is None else hospital_shift(identity.index, identity.hospitals, seed)
    train = HospitalRecords(dataset.train, np.load(directory / "train_records.npy"), shift)
    return Hospital(
        identity,
        dataset.spec,
        held_by(train, config, identity.index),
        HospitalRecords(dataset.test, np.load(directory / "test_records.npy"), shift),
        HospitalState(directory, durable=False),  # a simulation that loses its machine starts again
    )


@lru_cache(maxsize=4)
def _mapped(cache: Path, _made: int) -> Dataset:
    """One mapping for all hospitals of a worker and all rounds; `_made` tells a cache made anew."""
    return open_cache(cache)


def _open_deployed(identity: Identity, node: NodeConfig, config: RunConfig) -> Hospital:
    own = config.model_copy(update={"data_source": "file", "data_file": str(node["data-file"])})
    dataset = resolve(own)
    # The ledger belongs to the records: the same file has the same ledger, whatever the run.
    default = home() / "hospital" / dataset.source.md5
    directory = Path(str(node.get("state-dir", default))).expanduser()
    directory.mkdir(parents=True, exist_ok=True)
    train, test = (
        HospitalRecords(split, np.arange(len(split.labels)), NO_SHIFT)
        for split in (dataset.train, dataset.test)
    )
    return Hospital(identity, dataset.spec, train, test, HospitalState(directory))


def terms_of(hospital: Hospital, config: RunConfig, run: str) -> Terms:
    """The terms this hospital trains under, calibrated by itself from its number of records.

    Raises:
        UserError: as `plan_hospital`, or fewer than min-records.
    """
    name, records = hospital.identity.name, len(hospital.train)
    if records < config.min_records:
        raise UserError(f"{name} has {records} records, fewer than min-records = {config.min_records}")
    known = hospital.state.agreed_terms(run)
    if known is not None and _same_ask(known, config):
        return known
    return planned_terms(plan_hospital(name, records, config), config, run)


def planned_terms(plan: HospitalPlan, config: RunConfig, run: str) -> Terms:
    """A plan as the terms that a ledger holds."""
    return Terms(
        run,
        config.dp_scope,
        plan.records,
        plan.noise_multiplier,
        plan.sample_rate,
        plan.steps_per_round,
        config.max_grad_norm,
        config.target_epsilon,
        config.target_delta,
        plan.upload,
    )


def _same_ask(terms: Terms, config: RunConfig) -> bool:
    """True if the configuration still asks for what `terms` were calibrated for."""
    return (terms.scope, terms.max_grad_norm, terms.target_epsilon, terms.delta, terms.upload) == (
        config.dp_scope,
        config.max_grad_norm,
        config.target_epsilon,
        config.target_delta,
        upload_terms(config),
    )


def refusal(node: NodeConfig, config: RunConfig) -> str | None:
    """Why this hospital's own ceiling forbids the run; None if it doesn't.

    The node config may hold `max-epsilon`, `allowed-scopes` (comma-separated; where there is a
    `max-epsilon`, by default the scopes with a guarantee), and `allow-plain-encodings` (it covers labels
    in the clear too) and `allow-diagnostics` (by default true in a simulation, false where the node has
    a data file of its own). The run's configuration comes from elsewhere and can't raise them. What the
    records spend in all is held against `max-epsilon` by `budget.over_ceiling`.
    """
    impossible = _impossible(node, config)
    if impossible is not None:
        return impossible
    ceiling = ceiling_of(node)
    if ceiling is not None and (config.dp_scope == "none" or config.target_epsilon > ceiling):
        asked = "no DP" if config.dp_scope == "none" else f"target-epsilon {config.target_epsilon:g}"
        return f"the run asks for {asked}, this hospital allows at most epsilon {ceiling:g}"
    guaranteed = ", ".join(scope.name for scope in SCOPES.values() if scope.formal)
    allowed = node.get("allowed-scopes", guaranteed if ceiling is not None else None)
    if allowed is not None:
        scopes = [scope.strip() for scope in str(allowed).split(",")]
        if config.dp_scope not in scopes:
            return f"the run asks for dp-scope {config.dp_scope}, this hospital allows {', '.join(scopes)}"
    simulated = "data-file" not in node
    if config.diagnostics and not node.get("allow-diagnostics", simulated):
        return "the run asks for diagnostics, this hospital does not allow them (allow-diagnostics)"
    plain = [
        what
        for what, noised in (
            ("encodings", config.encoding_noise_epsilon),
            ("labels", config.label_epsilon),
        )
        if not noised
    ]
    if config.share != "updates" and plain and not node.get("allow-plain-encodings", simulated):
        asked = " and ".join(plain)
        return f"the run asks for plain {asked}, this hospital does not allow that (allow-plain-encodings)"
    return None


def _impossible(node: NodeConfig, config: RunConfig) -> str | None:
    if config.adversary != "none" and "data-file" in node:
        return f"the run simulates adversaries ({config.adversary}), this hospital has a data file of its own"
    try:
        device_of(config.device)
    except UserError as problem:
        return str(problem)
    return None


def ceiling_of(node: NodeConfig) -> float | None:
    """The most that this hospital's records may spend in all; None for no limit of its own."""
    ceiling = node.get("max-epsilon")
    return None if ceiling is None else float(ceiling)
