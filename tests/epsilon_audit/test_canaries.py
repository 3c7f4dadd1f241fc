"""Gradient canaries: disjoint, spread over parameters, clipped by the project's code like any record."""

import math

import numpy as np
import pytest
import torch

from fl_ppae.epsilon_audit.canaries import COORDINATES, LENGTH, gradients, lay_out, room
from fl_ppae.privacy.clipping import CLIP_MARGIN, clipped_sum

SHAPES = [(7, 3), (7,), (5, 7), (5,), (2, 3, 2)]


def dense(rows: list, count: int) -> list[torch.Tensor]:
    """The same gradients with all their zeros."""
    full = [torch.zeros(count, math.prod(row.shape), dtype=torch.float64) for row in rows]
    for values, row in zip(full, rows, strict=True):
        values[row.rows, row.columns] = row.value
    return [values.view(count, *row.shape) for values, row in zip(full, rows, strict=True)]


@pytest.mark.parametrize("canaries", [1, 7, 20])
def test_canaries_share_no_coordinate(canaries: int) -> None:
    layout = lay_out(SHAPES, canaries)
    assert layout.coordinates.shape == (canaries, COORDINATES)
    assert len(np.unique(layout.coordinates)) == canaries * COORDINATES
    assert 0 <= layout.coordinates.min() <= layout.coordinates.max() < layout.starts[-1] == 80


def test_as_many_canaries_fit_as_there_are_coordinates_for() -> None:
    assert room(SHAPES) == 20 == len(lay_out(SHAPES, 20).coordinates)


def test_a_canary_lies_in_several_parameters_where_it_can() -> None:
    layout = lay_out([(64, 16, 3, 3), (64,), (64, 64, 3, 3), (12, 64, 3, 3)], 5000)
    assert min(len(set(row)) for row in layout.parameter) >= 2
    assert {len(set(row)) for row in lay_out([(400,)], 100).parameter} == {1}  # it can't


def test_sparse_gradients_are_those_with_all_zeros() -> None:
    layout = lay_out(SHAPES, 20)
    present = np.array([3, 0, 11])
    rows = gradients(layout, present, 0.5)
    whole = dense(rows, 3)
    sparse, full = clipped_sum(rows, 0.5), clipped_sum([values.float() for values in whole], 0.5)
    torch.testing.assert_close(sparse.norms, full.norms, rtol=1e-6, atol=0)
    for one, other in zip(sparse.total, full.total, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)
        assert one.dtype == torch.float64


def test_clipping_leaves_the_clipping_norm() -> None:
    layout = lay_out(SHAPES, 20)
    clipped = clipped_sum(gradients(layout, np.array([5]), 0.5), 0.5)
    assert float(clipped.norms) == pytest.approx(0.5 * LENGTH)
    flat = torch.cat([total.flatten() for total in clipped.total])
    assert float(flat.norm()) == pytest.approx(0.5, rel=2 * CLIP_MARGIN)
    assert np.flatnonzero(flat).tolist() == sorted(layout.coordinates[5])


def test_canaries_that_are_not_there_add_nothing() -> None:
    layout = lay_out(SHAPES, 20)
    none = clipped_sum(gradients(layout, np.array([], np.int64), 0.5), 0.5)
    assert not any(total.any() for total in none.total)
    rows = gradients(layout, np.array([1, 2]), 0.5)
    only = [row.without(torch.tensor([True, False])).weighted_sum(torch.ones(2)) for row in rows]
    alone = [row.weighted_sum(torch.ones(1)) for row in gradients(layout, np.array([1]), 0.5)]
    for one, other in zip(only, alone, strict=True):
        torch.testing.assert_close(one, other)
