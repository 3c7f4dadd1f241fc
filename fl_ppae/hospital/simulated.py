"""What only a simulated hospital has: records assigned by the simulator, and what it leaves for audits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import nn

from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.cache import Dataset, open_cache
from fl_ppae.data.deal import Deal
from fl_ppae.data.records import HospitalRecords
from fl_ppae.errors import UserError
from fl_ppae.files import read_json, write_json
from fl_ppae.hospital.identity import Identity
from fl_ppae.runs.arrays import read_array


def directory_of(run_directory: Path, name: str) -> Path:
    """The state directory of hospital `name` in a simulation."""
    return run_directory / "hospitals" / name


def write_deal(deal: Deal, run_directory: Path) -> None:
    """Write each hospital's records, as indices, to its state directory."""
    for name, train in deal.train.items():
        directory = directory_of(run_directory, name)
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "train_records.npy", train.indices)
        np.save(directory / "test_records.npy", deal.test[name].indices)
        dealt = {"cache": str(deal.dataset.path), "shift_seed": deal.shift_seed}
        write_json(directory / "records.json", dealt)


def read_dealt(directory: Path, identity: Identity) -> tuple[HospitalRecords, HospitalRecords]:
    """The train and test records that `write_deal` wrote to a hospital's state directory."""
    dealt = read_json(directory / "records.json")
    cache, seed = Path(dealt["cache"]), dealt["shift_seed"]
    dataset = _mapped(cache, (cache / "meta.json").stat().st_mtime_ns)
    shift = NO_SHIFT if seed is None else hospital_shift(identity.index, identity.hospitals, seed)
    train, test = (np.load(directory / f"{part}_records.npy") for part in ("train", "test"))
    return HospitalRecords(dataset.train, train, shift), HospitalRecords(dataset.test, test, shift)


def leave_for_audit(encoder: nn.Module, name: str, run_directory: Path) -> None:
    """Save an encoder that never leaves its hospital, so that audits can measure its leakage."""
    folder = run_directory / "audit-only"
    folder.mkdir(exist_ok=True)
    save_file(encoder.state_dict(), folder / f"{name}.safetensors")


def leave_order_for_audit(order: np.ndarray, name: str, part: str, run_directory: Path) -> None:
    """Save the secret order of an upload, so that audits can pair its rows with the records."""
    path = _order_path(name, part, run_directory)
    path.parent.mkdir(exist_ok=True)
    np.save(path, order)


def knows_order(name: str, part: str, run_directory: Path) -> bool:
    """True if the run says in which order this upload left; runs of earlier versions don't."""
    return _order_path(name, part, run_directory).exists()


def in_dealt_order(rows: np.ndarray, name: str, part: str, run_directory: Path) -> np.ndarray:
    """The rows of an upload (N, ...) in the order in which the simulator dealt the records.

    Raises:
        UserError: the order is not known, so rows can't be paired with records.
    """
    path = _order_path(name, part, run_directory)
    if not knows_order(name, part, run_directory):
        raise UserError(f"{path} is missing: without it, uploaded rows can't be paired with their records")
    order = read_array(path)
    if not np.array_equal(np.sort(order), np.arange(len(rows))):
        raise UserError(f"{path} is not an order of the {len(rows)} rows that {name} uploaded")
    dealt = np.empty_like(rows)
    dealt[order] = rows
    return dealt


def _order_path(name: str, part: str, run_directory: Path) -> Path:
    return run_directory / "audit-only" / f"{name}-{part}-order.npy"


@lru_cache(maxsize=4)
def _mapped(cache: Path, _made: int) -> Dataset:
    """One mapping for all of a worker's hospitals and rounds; `_made` changes when the cache is rebuilt."""
    return open_cache(cache)
