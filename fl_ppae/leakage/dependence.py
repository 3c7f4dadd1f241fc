"""How strongly images and encodings depend on each other, without matching them coordinate by coordinate.

Unlike a cosine, they see through rotations of the encoding. They still say nothing about how well an image
can be reconstructed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired


def distances(sample: Tensor) -> Tensor:
    """Euclidean distances (N, N), double, of a sample (N, *anything).

    Raises:
        Unmeasurable: a number that is not finite.
    """
    check_finite(sample=sample)
    rows = sample.flatten(1).double()
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def products(sample: Tensor) -> Tensor:
    """Inner products (N, N), double, of a sample (N, *anything) about its mean.

    Raises:
        Unmeasurable: a number that is not finite.
    """
    check_finite(sample=sample)
    rows = sample.flatten(1).double()
    rows = rows - rows.mean(0)
    return rows @ rows.T


def distance_correlation(left: Tensor, right: Tensor) -> float:
    """Bias-corrected distance correlation of two samples, by their `distances` (N, N), N at least 4.

    R*_N of Szekely & Rizzo, J. Multivariate Analysis 117 (2013), by the U-centred distance
    matrices of Szekely & Rizzo, Annals of Statistics 42 (2014), which give the same number. On the scale
    of a squared correlation: 1 for a sample and itself (or a rotation of it); around 0, on either
    side, for independent samples of any dimensions. 0 if one sample is constant.

    Raises:
        Unmeasurable: fewer than four records, not as many of both, or a number that is not finite.
    """
    check_paired(4, left=left, right=right)
    return _normalised(_u_centred(left), _u_centred(right))


def linear_cka(left: Tensor, right: Tensor) -> float:
    """Linear centred kernel alignment of two samples, by their `products` (N, N), N at least 2; in [0, 1].

    Kornblith et al. 2019, arXiv:1905.00414, eq. 4 with linear kernels. 1 for a sample and a scaled
    rotation of it. For independent samples it is far above 0 unless N is far above their dimensions, so
    compare it with its value for encodings paired with the wrong images. 0 if one sample is constant.

    Raises:
        Unmeasurable: fewer than two records, not as many of both, or a number that is not finite.
    """
    check_paired(2, left=left, right=right)
    return _normalised(_centred(left), _centred(right))


def _u_centred(matrix: Tensor) -> Tensor:
    """Distances minus their row and column means, plus the overall mean, all without the diagonal."""
    n = len(matrix)
    sums = matrix.sum(1)
    centred = matrix - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0.0)


def _centred(matrix: Tensor) -> Tensor:
    """Products minus their row and column means, plus the overall mean."""
    means = matrix.mean(1)
    return matrix - means[:, None] - means[None, :] + means.mean()


def _normalised(a: Tensor, b: Tensor) -> float:
    check_finite(left=a, right=b)
    scale = a.norm() * b.norm()
    return ((a * b).sum() / scale).item() if scale > 0 else 0.0
