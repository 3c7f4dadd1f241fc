"""One hospital as its node sees it: who it is, its records, its state directory, what it refuses.

In a simulation the simulator deals the records out and keeps the state under the run's directory.
Deployed, a node's own configuration names its data file and its state directory, and no message does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fl_ppae.adversary import held_by
from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.cache import Dataset, open_cache
from fl_ppae.data.deal import Deal
from fl_ppae.data.records import HospitalRecords, Records
from fl_ppae.data.registry import DatasetSpec
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.files import home, read_json, write_json
from fl_ppae.hospital.identity import Identity, NodeConfig
from fl_ppae.hospital.state import HospitalState
from fl_ppae.privacy.ledger import Terms
from fl_ppae.privacy.plan import plan_hospital, planned_terms, upload_terms


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


def _same_ask(terms: Terms, config: RunConfig) -> bool:
    """True if the configuration still asks for what `terms` were calibrated for."""
    return (terms.scope, terms.max_grad_norm, terms.target_epsilon, terms.delta, terms.upload) == (
        config.dp_scope,
        config.max_grad_norm,
        config.target_epsilon,
        config.target_delta,
        upload_terms(config),
    )


def write_deal(deal: Deal, run_directory: Path) -> None:
    """Give each hospital its records in its state directory."""
    for name, train in deal.train.items():
        test, cache = deal.test[name], deal.dataset.path
        deal_out(run_directory, cache, name, train.indices, test.indices, deal.shift_seed)
