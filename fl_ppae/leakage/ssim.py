"""Structural similarity with gradients, for attackers who train for it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

WINDOW = 7  # pixels
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # the usual constants, for pixels in [0, 1]


def ssim(left: Tensor, right: Tensor) -> Tensor:
    """(N,): of images (N, C, H, W) in [0, 1], at least 7 x 7, mean over windows and channels.

    Wang et al. 2004 (IEEE Trans. Image Processing 13), with scikit-image's settings: uniform windows of 7
    pixels that lie inside the image, and sample covariances.
    """
    unbiased = WINDOW**2 / (WINDOW**2 - 1)

    def mean(images: Tensor) -> Tensor:
        return F.avg_pool2d(images, WINDOW, stride=1)

    one, other = mean(left), mean(right)
    variances = unbiased * (mean(left**2) - one**2 + mean(right**2) - other**2)
    covariance = unbiased * (mean(left * right) - one * other)
    luminance = (2 * one * other + _LUMINANCE) / (one**2 + other**2 + _LUMINANCE)
    return (luminance * (2 * covariance + _CONTRAST) / (variances + _CONTRAST)).mean((1, 2, 3))
