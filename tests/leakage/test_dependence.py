"""Distance correlation and CKA against their definitions, and where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fl_ppae.leakage.dependence import distance_correlation, distances, linear_cka, products


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    return distance_correlation(distances(left), distances(right))


def alignment(left: torch.Tensor, right: torch.Tensor) -> float:
    return linear_cka(products(left), products(right))


def draw(records: int, dimensions: int, seed: int) -> torch.Tensor:
    return torch.randn(records, dimensions, generator=torch.Generator().manual_seed(seed))


def orthogonal(dimensions: int) -> torch.Tensor:
    return torch.linalg.qr(draw(dimensions, dimensions, 9))[0]


def bias_corrected_of_2013(x: np.ndarray, y: np.ndarray) -> float:
    """R*_n of Szekely & Rizzo 2013 as defined there, in loops: the A* of doubly centred distances."""
    n = len(x)

    def starred(rows: np.ndarray) -> np.ndarray:
        a = [[math.dist(rows[i], rows[j]) for j in range(n)] for i in range(n)]
        means = [sum(a[i]) / n for i in range(n)]
        mean = sum(means) / n
        out = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                if i == j:
                    out[i, j] = n / (n - 1) * (means[i] - mean)
                else:
                    out[i, j] = n / (n - 1) * (a[i][j] - means[i] - means[j] + mean - a[i][j] / n)
        return out

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        off = sum(a[i, j] * b[i, j] for i in range(n) for j in range(n) if i != j)
        diagonal = sum(a[i, i] * b[i, i] for i in range(n))
        return (off - 2 / (n - 2) * diagonal) / (n * (n - 3))

    a, b = starred(x), starred(y)
    return covariance(a, b) / math.sqrt(covariance(a, a) * covariance(b, b))


@pytest.mark.parametrize(("records", "left", "right"), [(4, 2, 3), (9, 1, 1), (25, 5, 40)])
def test_distance_correlation_is_that_of_2013(records, left, right):
    x, y = draw(records, left, 0), draw(records, right, 1)
    y[:, 0] += x[:, 0]
    expected = bias_corrected_of_2013(x.double().numpy(), y.double().numpy())
    assert correlation(x, y) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("records", "left", "right"), [(2, 2, 3), (9, 1, 1), (25, 5, 40)])
def test_linear_cka_is_its_feature_form(records, left, right):
    x, y = draw(records, left, 0).numpy(), draw(records, right, 1).numpy()
    x, y = x.astype(float) - x.mean(0, dtype=float), y.astype(float) - y.mean(0, dtype=float)
    cross = sum((x[:, i] @ y[:, j]) ** 2 for i in range(left) for j in range(right))
    own = [
        math.sqrt(sum((z[:, i] @ z[:, j]) ** 2 for i in range(k) for j in range(k)))
        for z, k in ((x, left), (y, right))
    ]
    assert alignment(torch.tensor(x), torch.tensor(y)) == pytest.approx(cross / own[0] / own[1], abs=1e-6)


@pytest.mark.parametrize("measure", [correlation, alignment])
def test_equal_and_rotated_samples_have_1(measure):
    x = draw(60, 12, 0)
    assert measure(x, x) == pytest.approx(1)
    assert measure(x, 7 * x @ orthogonal(12) + 3) == pytest.approx(1, abs=1e-5)
    assert measure(x.view(60, 3, 2, 2), x) == pytest.approx(1)


@pytest.mark.parametrize(("left", "right"), [(1, 1), (5, 5), (200, 100)])
def test_independent_samples_have_a_distance_correlation_about_0_in_any_dimension(left, right):
    values = [correlation(draw(50, left, seed), draw(50, right, seed + 100)) for seed in range(30)]
    assert abs(np.mean(values)) < 0.03
    assert min(values) < 0 < max(values)


def test_cka_of_independent_samples_is_high_where_dimensions_are_many():
    assert alignment(draw(50, 200, 0), draw(50, 200, 1)) > 0.7
    assert alignment(draw(5000, 5, 0), draw(5000, 5, 1)) < 0.05


@pytest.mark.parametrize("measure", [correlation, alignment])
def test_a_constant_encoding_shows_nothing(measure):
    assert measure(draw(20, 5, 0), torch.ones(20, 3)) == 0


def test_part_of_a_matrix_is_the_matrix_of_a_part():
    x, y, kept = draw(30, 4, 0), draw(30, 6, 1), np.arange(3, 21)
    for matrix, combine in ((distances, distance_correlation), (products, linear_cka)):
        left, right = matrix(x), matrix(y)
        whole = combine(matrix(x[kept]), matrix(y[kept]))
        assert combine(left[kept][:, kept], right[kept][:, kept]) == pytest.approx(whole)
