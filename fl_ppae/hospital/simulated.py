"""What only a simulated hospital has: records assigned by the simulator, and an encoder kept for audits."""

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
from fl_ppae.files import read_json, write_json
from fl_ppae.hospital.identity import Identity


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


@lru_cache(maxsize=4)
def _mapped(cache: Path, _made: int) -> Dataset:
    """One mapping for all of a worker's hospitals and rounds; `_made` changes when the cache is rebuilt."""
    return open_cache(cache)
