"""What only a simulated hospital has: records that the simulator dealt, and an encoder left for audits."""

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
    """Give each hospital its records in its state directory."""
    for name, train in deal.train.items():
        directory = directory_of(run_directory, name)
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "train_records.npy", train.indices)
        np.save(directory / "test_records.npy", deal.test[name].indices)
        dealt = {"cache": str(deal.dataset.path), "shift_seed": deal.shift_seed}
        write_json(directory / "records.json", dealt)


def read_dealt(directory: Path, identity: Identity) -> tuple[HospitalRecords, HospitalRecords]:
    """The train and test records that `write_deal` left in a hospital's state directory."""
    dealt = read_json(directory / "records.json")
    cache, seed = Path(dealt["cache"]), dealt["shift_seed"]
    dataset = _mapped(cache, (cache / "meta.json").stat().st_mtime_ns)
    shift = NO_SHIFT if seed is None else hospital_shift(identity.index, identity.hospitals, seed)
    train, test = (np.load(directory / f"{part}_records.npy") for part in ("train", "test"))
    return HospitalRecords(dataset.train, train, shift), HospitalRecords(dataset.test, test, shift)


def leave_for_audit(encoder: nn.Module, name: str, run_directory: Path) -> None:
    """Keep an encoder that never leaves its hospital where audits measure its leakage afterwards."""
    folder = run_directory / "audit-only"
    folder.mkdir(exist_ok=True)
    save_file(encoder.state_dict(), folder / f"{name}.safetensors")


@lru_cache(maxsize=4)
def _mapped(cache: Path, _made: int) -> Dataset:
    """One mapping for all hospitals of a worker and all rounds; `_made` tells a cache made anew."""
    return open_cache(cache)
