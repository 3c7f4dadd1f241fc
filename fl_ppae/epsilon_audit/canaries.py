"""Canaries as gradients: each has coordinates of its own in several parameters and is clipped like a record.

A canary's gradient is far longer than the clipping norm and lies on `COORDINATES` coordinates that no other
canary has, in different parameters where sizes allow. Then clipping leaves exactly the clipping norm, shared
evenly, and canaries do not disturb each other. Clipping each parameter by itself, or leaving one without
noise, is then as visible as too little noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

COORDINATES = 4  # of each canary
LENGTH = 1000.0  # of a canary's gradient in clipping norms
MOST_CANARIES = 15_000  # by default; more gain little

Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each canary's gradient lies, counted over all noised parameters in order.

    Attributes:
        shapes: of the noised parameters.
        coordinates: (m, COORDINATES) int64, all different.
    """

    shapes: Shapes
    coordinates: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """(parameters + 1,) int64: where each parameter begins, and where the last one ends."""
        return np.cumsum([0, *(math.prod(shape) for shape in self.shapes)])

    @cached_property
    def parameter(self) -> np.ndarray:
        """(m, COORDINATES) int64: in which parameter each coordinate lies."""
        return np.searchsorted(self.starts, self.coordinates, side="right") - 1


def room(shapes: Shapes) -> int:
    """How many canaries fit into parameters of these shapes."""
    return sum(math.prod(shape) for shape in shapes) // COORDINATES


def lay_out(shapes: Shapes, canaries: int) -> Layout:
    """Coordinates for `canaries` canaries, at most `room(shapes)`, those in most parameters first."""
    most = room(shapes)
    every = Layout(shapes, np.arange(most)[:, None] + most * np.arange(COORDINATES))
    ordered = np.sort(every.parameter, axis=1)
    parameters = 1 + (np.diff(ordered, axis=1) > 0).sum(axis=1)
    chosen = np.sort(np.argsort(-parameters, kind="stable")[:canaries])
    return Layout(shapes, every.coordinates[chosen])


@dataclass(frozen=True, eq=False)
class CanaryRows:
    """One parameter's gradients of N canaries: `value` at `columns` of the records `rows`, zero elsewhere.

    Attributes:
        shape: of the parameter.
        rows, columns: (e,) int64; columns count within the flattened parameter.
    """

    records: int
    shape: tuple[int, ...]
    rows: Tensor
    columns: Tensor
    value: float

    def squared_norms(self) -> Tensor:
        """(N,) float64."""
        squares = torch.full(self.rows.shape, self.value**2, dtype=torch.float64)
        return torch.zeros(self.records, dtype=torch.float64).index_add_(0, self.rows, squares)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Sum over records of their factor, (N,), times their gradient, float64."""
        total = torch.zeros(math.prod(self.shape), dtype=torch.float64)
        return total.index_add_(0, self.columns, self.value * factors.double()[self.rows]).view(self.shape)

    def without(self, finite: Tensor) -> CanaryRows:
        """The same with zeros for records that are not `finite` (N,)."""
        kept = finite[self.rows]
        return CanaryRows(self.records, self.shape, self.rows[kept], self.columns[kept], self.value)


def gradients(layout: Layout, present: np.ndarray, max_grad_norm: float) -> list[CanaryRows]:
    """The gradients of the canaries `present`, (N,) int64, one element per parameter."""
    value = LENGTH * max_grad_norm / math.sqrt(COORDINATES)
    coordinates, parameter = layout.coordinates[present], layout.parameter[present]
    found = []
    for number, shape in enumerate(layout.shapes):
        rows, which = np.nonzero(parameter == number)
        columns = coordinates[rows, which] - layout.starts[number]
        found.append(
            CanaryRows(len(present), shape, torch.from_numpy(rows), torch.from_numpy(columns), value)
        )
    return found
