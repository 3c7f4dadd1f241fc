"""The Gaussian mechanism on encodings: centre and project using public data, clip, add noise.

Guarantee: under replace-one neighbours, each record's released vector is one Gaussian mechanism of
sensitivity 2 (two vectors of norm at most 1) and standard deviation `noise_multiplier`, whatever the
encoder and the projection are, provided they depend on the records only through private releases. The
encoder's own training is another event in the ledger; the two compose.

A full encoding of 784 numbers drowns in such noise. Projecting to a few numbers first keeps most of the
information. The projection comes from public data (the server's own split): fitted to the records, it
would be another release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from fl_ppae.errors import UserError
from fl_ppae.privacy.clipping import CLIP_MARGIN
from fl_ppae.privacy.noise import add_noise
from fl_ppae.privacy.randomness import Stream

# Of the public encodings' norms; longer encodings are clipped. Accuracy hardly changes from 0.1 to 0.5.
CLIP_QUANTILE = 0.25


@dataclass(frozen=True)
class Projection:
    """The projection of every encoding before noise is added; public, and the same for all hospitals.

    Attributes:
        centre: (d,) float32, subtracted from the flattened encoding.
        components: (k, d) float32, k <= d.
        clip_norm: L2 norm to which a projected encoding is clipped, > 0; the unit of released values.
    """

    centre: np.ndarray
    components: np.ndarray
    clip_norm: float


def check_projection(size: int, records: int, numbers: int) -> None:
    """Check that `records` public encodings of `numbers` values each can be projected to `size`.

    Raises:
        UserError: an encoding has fewer values than `size`, or there are fewer encodings.
    """
    if size > min(records, numbers):
        raise UserError(
            f"projection-size = {size} is too large: an encoding has {numbers} numbers and the public "
            f"split {records} images; at most {min(records, numbers)}"
        )


def public_projection(encodings: np.ndarray, size: int) -> Projection:
    """The first `size` principal components of public encodings (N, *encoding), about their mean.

    Raises:
        UserError: as `check_projection`.
    """
    flat = encodings.reshape(len(encodings), -1).astype(np.float64)
    check_projection(size, *flat.shape)
    from sklearn.decomposition import PCA  # takes seconds to import, and only the server needs it

    fitted = PCA(size, svd_solver="covariance_eigh").fit(flat)
    norms = np.linalg.norm(fitted.transform(flat), axis=1)
    clip_norm = float(np.quantile(norms, CLIP_QUANTILE)) or 1.0
    # In C order: safetensors writes an array's memory as it is laid out.
    components = np.ascontiguousarray(fitted.components_, np.float32)
    return Projection(fitted.mean_.astype(np.float32), components, clip_norm)


def project_and_clip(encodings: np.ndarray, projection: Projection) -> np.ndarray:
    """(N, k) float64 of norm at most 1: projected encodings (N, *encoding) in units of the clipping norm.

    | projected encoding | becomes |
    |---|---|
    | norm <= clip_norm | itself / clip_norm (less the margin of 1e-5) |
    | norm > clip_norm | its direction |
    | not finite | zeros |
    """
    flat = encodings.reshape(len(encodings), math.prod(encodings.shape[1:])).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        rows = (flat - projection.centre) @ projection.components.T.astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.where(np.isfinite(norms), rows, 0.0)
    norms = np.where(np.isfinite(norms), norms, 0.0)
    return rows / (np.maximum(norms, projection.clip_norm) * (1 + CLIP_MARGIN))


def noised(rows: np.ndarray, noise_multiplier: float, stream: Stream) -> np.ndarray:
    """(N, k) float32: clipped rows (N, k) of norm at most 1 with independent Gaussian noise, on its grid."""
    (released,) = add_noise([torch.from_numpy(rows)], noise_multiplier, stream)
    return released.numpy().astype(np.float32)
