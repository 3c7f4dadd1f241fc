"""The simulator's part: it owns the whole data set and deals it out. No deployment has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.cache import Dataset, Split
from fl_ppae.data.partition import partition, share_out
from fl_ppae.data.records import HospitalRecords


@dataclass(frozen=True)
class Deal:
    """Who holds what: each hospital's part of the official train and test splits, by name."""

    train: Mapping[str, HospitalRecords]
    test: Mapping[str, HospitalRecords]
    shift_seed: int | None


def make_deal(dataset: Dataset, config: RunConfig, names: list[str]) -> Deal:
    """Deal the train split by `config.partition` and the test split evenly.

    Raises:
        UserError: a hospital below min-records, or an impossible partition.
    """
    seed = max(config.seed, 0)
    shift_seed = seed if config.partition == "acquisition-shift" else None
    train = partition(dataset.train.labels, config, len(names))
    test = share_out(len(dataset.test), len(names), seed)

    def records(split: Split, shares: list[np.ndarray]) -> dict[str, HospitalRecords]:
        held = {}
        for index, (name, indices) in enumerate(zip(names, shares, strict=True)):
            shift = NO_SHIFT if shift_seed is None else hospital_shift(index, len(names), shift_seed)
            held[name] = HospitalRecords(split, indices, shift)
        return held

    return Deal(records(dataset.train, train), records(dataset.test, test), shift_seed)


def pooled(held: Mapping[str, HospitalRecords]) -> tuple[torch.Tensor, np.ndarray]:
    """All hospitals' images (N, C, H, W) in [0, 1] and labels (N,), one hospital after the other."""
    images = [records.images() for records in held.values()]
    labels = [records.labels().numpy() for records in held.values()]
    return torch.cat(images), np.concatenate(labels)
