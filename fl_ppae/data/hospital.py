"""One hospital's records: the rows of a split that are its own, as it would have acquired them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fl_ppae.data.acquisition import NO_SHIFT, AcquisitionShift
from fl_ppae.data.cache import Split

Positions = np.ndarray | slice


class Records(Protocol):
    """What training needs of records. Positions count from 0 to len - 1."""

    def __len__(self) -> int: ...

    def images(self, positions: Positions) -> torch.Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        ...

    def labels(self, positions: Positions) -> torch.Tensor:
        """(N,) int64."""
        ...


@dataclass(frozen=True, eq=False)
class HospitalRecords:
    """The records `indices` of `split`, in that order. Positions count from 0 within the hospital."""

    split: Split
    indices: np.ndarray
    shift: AcquisitionShift = NO_SHIFT

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N, C, H, W) float32 in [0, 1], shift applied. Only these rows are read from the disk."""
        return self.shift.apply(to_float(self.split.images[self.indices[positions]]))

    def labels(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N,) int64."""
        return torch.from_numpy(np.array(self.split.labels[self.indices[positions]]))


def to_float(images: np.ndarray) -> torch.Tensor:
    """Images (N, H, W, C) uint8 as (N, C, H, W) float32 in [0, 1], contiguous."""
    # torch.tensor copies: a memory-mapped array is read-only, which torch.from_numpy does not respect.
    pixels = torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
