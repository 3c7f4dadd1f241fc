"""One hospital's records: its rows of a split, as it would have acquired them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fl_ppae.data.acquisition import NO_SHIFT, AcquisitionShift
from fl_ppae.data.cache import Split

Positions = np.ndarray | slice

_MOST_RESIDENT = 2**31  # bytes of a hospital's pixels in a device's memory


class Records(Protocol):
    """What training needs of records. Positions count from 0 to len - 1."""

    def __len__(self) -> int: ...

    def images(self, positions: Positions) -> torch.Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        ...

    def labels(self, positions: Positions) -> torch.Tensor:
        """(N,) int64; of a multi-label set (N, K), each 0 or 1."""
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
        """(N, C, H, W) float32 in [0, 1], with the shift. Reads only these rows from disk."""
        return self.shift.apply(to_float(self.split.images[self.indices[positions]]))

    def labels(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N,) int64."""
        return torch.from_numpy(np.array(self.split.labels[self.indices[positions]]))


@dataclass(frozen=True, eq=False)
class JoinedRecords:
    """The records of several holders as one: those of the first, then those of the second, and so on."""

    parts: tuple[Records, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def images(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        return self._gathered(positions, lambda part, rows: part.images(rows))

    def labels(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N,) int64."""
        return self._gathered(positions, lambda part, rows: part.labels(rows))

    def _gathered(
        self, positions: Positions, read: Callable[[Records, np.ndarray], torch.Tensor]
    ) -> torch.Tensor:
        asked = np.arange(len(self))[positions]
        ends = np.cumsum([len(part) for part in self.parts])
        holders = np.searchsorted(ends, asked, side="right")
        found, places = [], []
        for holder in np.unique(holders):
            part = self.parts[holder]
            mine = np.flatnonzero(holders == holder)
            found.append(read(part, asked[mine] - (ends[holder] - len(part))))
            places.append(mine)
        return torch.cat(found)[torch.from_numpy(np.argsort(np.concatenate(places)))]


@dataclass(frozen=True, eq=False)
class ResidentRecords:
    """All records of a hospital as pixels in a device's memory: one transfer per round, not per batch.

    Attributes:
        pixels: (N, C, H, W) uint8. every_label: (N,) int64.
    """

    pixels: torch.Tensor
    every_label: torch.Tensor
    shift: AcquisitionShift

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N, C, H, W) float32 in [0, 1] on the device, with the shift."""
        return self.shift.apply(_unit(self.pixels[self._rows(positions)]))

    def labels(self, positions: Positions = slice(None)) -> torch.Tensor:
        """(N,) int64 on the device."""
        return self.every_label[self._rows(positions)]

    def _rows(self, positions: Positions) -> torch.Tensor | slice:
        if isinstance(positions, slice):
            return positions
        return torch.from_numpy(positions).to(self.pixels.device)


def resident(records: Records, device: torch.device) -> Records:
    """A split's records copied to a CUDA `device`; on a CPU, other records or too many bytes: unchanged."""
    if device.type == "cpu" or not isinstance(records, HospitalRecords):
        return records
    if len(records) * records.split.images[:1].nbytes > _MOST_RESIDENT:
        return records
    pixels = _channels_first(records.split.images[records.indices]).to(device)
    return ResidentRecords(pixels, records.labels().to(device), records.shift)


def to_float(images: np.ndarray) -> torch.Tensor:
    """Images (N, H, W, C) uint8 as (N, C, H, W) float32 in [0, 1], channels last in memory."""
    return _unit(_channels_first(images))


def _channels_first(images: np.ndarray) -> torch.Tensor:
    # torch.tensor copies. torch.from_numpy would ignore that a memory-mapped array is read-only.
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)


def _unit(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.to(torch.float32).div_(255)
