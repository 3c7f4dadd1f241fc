"""Canaries: extra records of a hospital, each included or left out by its own fair coin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fl_ppae.data.acquisition import AcquisitionShift
from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords, Positions
from fl_ppae.data.registry import DatasetSpec


def draw_canaries(
    count: int, spec: DatasetSpec, shift: AcquisitionShift, rng: np.random.Generator
) -> HospitalRecords:
    """`count` images of black-and-white stripes, a direction, width and phase for each colour channel.

    Labels are drawn uniformly. Why stripes: a convolution's gradient depends on the patches of an image, so
    images with different patches have different gradients, and an inner product tells one canary from
    another. All are clipped to the full norm. Pixel noise has the same patches in every image.
    """
    shape = (count, 1, 1, spec.channels)
    down, right = rng.uniform(0, np.pi, shape), rng.uniform(-np.pi, np.pi, shape)
    phase = rng.uniform(0, 2 * np.pi, shape)
    row, column = np.mgrid[: spec.size, : spec.size][..., None]
    bright = np.sin(down * row + right * column + phase) > 0
    labels = rng.integers(0, spec.num_classes, count)
    return HospitalRecords(Split(np.where(bright, 255, 0).astype(np.uint8), labels), np.arange(count), shift)


@dataclass(frozen=True, eq=False)
class AuditedRecords:
    """A hospital's own records, then one slot for each canary; the slot of one left out is empty.

    Every slot is counted and drawn into batches alike, so sample rate, steps and divisor don't depend on the
    coins: this is adding or removing a record while the number of records is public. A batch can then have
    fewer images than positions.

    Attributes:
        included: (m,) bool, the coins.
    """

    own: HospitalRecords
    canaries: HospitalRecords
    included: np.ndarray

    def __len__(self) -> int:
        return len(self.own) + len(self.canaries)

    def images(self, positions: Positions) -> torch.Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        own, canaries = self._present(positions)
        return torch.cat([self.own.images(own), self.canaries.images(canaries)])

    def labels(self, positions: Positions) -> torch.Tensor:
        """(N,) int64."""
        own, canaries = self._present(positions)
        return torch.cat([self.own.labels(own), self.canaries.labels(canaries)])

    def _present(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        slots = np.arange(len(self))[positions]
        canaries = slots[slots >= len(self.own)] - len(self.own)
        return slots[slots < len(self.own)], canaries[self.included[canaries]]
