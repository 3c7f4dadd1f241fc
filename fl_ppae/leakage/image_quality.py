"""How close reconstructed images are to the originals, and what an attacker reaches without encodings.

A similarity of images means nothing without its floors: the mean image, and the mean image of the right
class. Hiding an image perfectly means that the attacker does no better than these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.ranges import check_images, check_paired
from fl_ppae.leakage.ssim import WINDOW

Array = NDArray[Any]

_LEAST_MSE = 1e-10  # PSNR ends at 100 dB


@dataclass(frozen=True)
class ImageQuality:
    """One number per image, (N,) each.

    Attributes:
        mse: mean squared error per pixel, pixels in [0, 1].
        psnr: 10 log10(1 / mse), dB; at most 100.
        ssim: structural similarity (Wang et al., IEEE Trans. Image Processing 13, 2004), in [-1, 1], by
            scikit-image with its default settings: windows of 7 pixels, mean over channels.
    """

    mse: Array
    psnr: Array
    ssim: Array

    def of(self, metric: str) -> Array:
        """One of its three metrics by name."""
        values: Array = getattr(self, metric)
        return values

    def goodness(self, metric: str) -> float:
        """The mean of a metric, negative if lower is better: what an attacker maximises."""
        return float(self.of(metric).mean()) * (-1 if metric == "mse" else 1)


def image_quality(originals: Tensor, reconstructed: Tensor) -> ImageQuality:
    """Compare float images (N, C, H, W) in [0, 1] with their reconstructions, also in [0, 1].

    Raises:
        Unmeasurable: shapes differ, there are no images, height or width is below 7, or a pixel is no float
            in [0, 1].
    """
    if originals.shape != reconstructed.shape:
        raise Unmeasurable(f"images of {tuple(originals.shape)} against {tuple(reconstructed.shape)}")
    check_images(originals=originals, reconstructed=reconstructed)
    height, width = originals.shape[2:]
    if min(height, width) < WINDOW:
        raise Unmeasurable(
            f"images of {height}x{width} pixels: SSIM's window needs {WINDOW}x{WINDOW} or more"
        )
    left, right = (images.double().clamp(0, 1).numpy() for images in (originals, reconstructed))
    mse = ((left - right) ** 2).mean((1, 2, 3))
    ssim = [
        structural_similarity(one, other, win_size=WINDOW, channel_axis=0, data_range=1.0)
        for one, other in zip(left, right, strict=True)
    ]
    return ImageQuality(mse, -10 * np.log10(np.maximum(mse, _LEAST_MSE)), np.array(ssim))


def mean_images(known: Tensor, count: int) -> Tensor:
    """The mean of the attacker's images (M, C, H, W), `count` times: the guess of one who sees nothing.

    Raises:
        Unmeasurable: there are no images, or one is no float image in [0, 1].
    """
    check_images(known=known)
    return known.mean(0).expand(count, *known.shape[1:])


def class_mean_images(known: Tensor, known_labels: Tensor, labels: Tensor) -> Tensor:
    """For each of `labels` (N,) the mean of the attacker's images (M, C, H, W) of that class.

    The guess of an attacker who knows only the label; the mean image for a class that the attacker lacks.
    Label sets (N, K) count as classes: a record's is that of the records with the same set.

    Raises:
        Unmeasurable: as `mean_images`, or there are not as many labels as images.
    """
    check_images(known=known)
    check_paired(known=known, known_labels=known_labels)
    kinds, kind_of = torch.cat([known_labels, labels]).unique(dim=0, return_inverse=True)
    own, wanted = kind_of[: len(known)], kind_of[len(known) :].tolist()
    means = {kind: known[own == kind].mean(0) for kind in range(len(kinds)) if (own == kind).any()}
    mean = known.mean(0)
    return torch.stack([means.get(kind, mean) for kind in wanted])
