"""A simulation owns the whole dataset and deals it to its hospitals. A deployment never does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.cache import Dataset
from fl_ppae.data.partition import natural_shares, partition, share_out
from fl_ppae.data.records import HospitalRecords, JoinedRecords, Records


@dataclass(frozen=True, eq=False)
class Deal:
    """A dataset and each hospital's part of it. A process makes one deal and passes it on.

    Attributes:
        train: each hospital's part of the official train split, by name.
        seed: draws the shares of the test split.
        shift_seed: draws the hospitals' acquisition shifts; None if they have none.
    """

    dataset: Dataset
    train: Mapping[str, HospitalRecords]
    seed: int
    shift_seed: int | None

    @cached_property
    def test(self) -> Mapping[str, HospitalRecords]:
        """Each hospital's equal share of the official test split, by name.

        Raises:
            UserError: there are fewer test records, or patients, than hospitals.
        """
        test = self.dataset.test
        shares = share_out(len(test), len(self.train), self.seed, test.patients)
        return {
            name: HospitalRecords(test, indices, train.shift)
            for (name, train), indices in zip(self.train.items(), shares, strict=True)
        }


def make_deal(dataset: Dataset, config: RunConfig, names: Sequence[str]) -> Deal:
    """Deal the train split to the hospitals `names` by `config.partition`.

    Raises:
        UserError: a hospital gets fewer than min-records, or the partition is impossible.
    """
    seed = max(config.seed, 0)
    shift_seed = seed if config.partition == "acquisition-shift" else None
    split = dataset.train
    if config.partition == "natural":
        shares = natural_shares(split.hospitals, split.patients, config, len(names))
    else:
        shares = partition(split.labels, config, len(names), split.patients)
    train = {}
    for index, (name, indices) in enumerate(zip(names, shares, strict=True)):
        shift = NO_SHIFT if shift_seed is None else hospital_shift(index, len(names), shift_seed)
        train[name] = HospitalRecords(split, indices, shift)
    return Deal(dataset, train, seed, shift_seed)


def held_identities(deal: Deal, part: Literal["train", "test"]) -> dict[str, np.ndarray]:
    """(N,) int64: the identities of each hospital's records of a part, by its name."""
    numbers = deal.dataset.identities[part]
    return {name: numbers[records.indices] for name, records in getattr(deal, part).items()}


def hospital_names(count: int) -> list[str]:
    """The names of `count` simulated hospitals, in order."""
    return [f"hospital-{index}" for index in range(count)]


def pooled(hospitals: Mapping[str, HospitalRecords]) -> tuple[Records, np.ndarray]:
    """All hospitals' records and their labels (N,), one hospital after the other."""
    records = JoinedRecords(tuple(hospitals.values()))
    return records, records.labels().numpy()
