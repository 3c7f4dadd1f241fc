"""Encodings without training, the baselines for trained encoders."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_ppae.errors import UserError
from fl_ppae.models.classifiers import CELLS

Array = NDArray[np.float32]

_MOST_COMPONENTS = 784  # the size of an `fc` encoding
_BATCH = 256


def pca_components(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and principal directions (k, d) of images (N, C, H, W).

    Fitted to the server's own split: it uses no hospital's records, so it costs no epsilon. k is the largest
    multiple of 49, as ResNet18 requires, that is below the number of images and at most 784.

    Raises:
        ValueError: fewer than 50 images.
    """
    flat = images.flatten(1).double()
    count = min(_MOST_COMPONENTS, len(flat) - 1, flat.shape[1]) // CELLS * CELLS
    if count < CELLS:
        raise ValueError(f"PCA to a multiple of {CELLS} needs more than {CELLS} images, got {len(flat)}")
    mean = flat.mean(0)
    directions = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:count]
    return mean, directions


def pca_encode(mean: Tensor, directions: Tensor, images: Tensor) -> Array:
    """Images (N, C, H, W) as (N, k)."""
    encoded: Array = ((images.flatten(1).double() - mean) @ directions.T).float().numpy()
    return encoded


def scatter_encode(images: Tensor) -> Array:
    """Two layers of fixed wavelets (Bruna & Mallat 2012, arXiv:1203.1513): (N, 81 C, H / 4, W / 4).

    J = 2, L = 8, as the features in Tramer & Boneh 2021 (arXiv:2011.11660). Nothing is fitted.

    Raises:
        UserError: kymatio is not installed.
    """
    try:
        # `kymatio.torch` imports a 3D transform that needs a function SciPy has removed.
        from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D
    except ImportError:
        raise UserError("ScatterNet needs kymatio: pip install 'fl-ppae[study]'") from None
    transform = ScatteringTorch2D(J=2, shape=tuple(images.shape[2:]), L=8)
    with torch.inference_mode():
        parts = [transform(part.contiguous()).flatten(1, 2) for part in images.split(_BATCH)]
    encoded: Array = torch.cat(parts).numpy()
    return encoded
