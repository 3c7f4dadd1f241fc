"""What a hospital releases of one part of its records: encodings, and for the train part labels.

Guarantee: that of `UploadTerms.events`, provided they were announced before this is called: the Gaussian
mechanism on encodings (`privacy.encodings`), randomised response on labels (`privacy.labels`). Anything
that the terms leave plain is released unchanged.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fl_ppae.data.pieces import images_at_once
from fl_ppae.data.records import Records
from fl_ppae.message_arrays import MAX_WEIGHT
from fl_ppae.privacy.encodings import Projection, noised, project_and_clip
from fl_ppae.privacy.labels import randomised_response
from fl_ppae.privacy.randomness import Stream
from fl_ppae.privacy.terms import UploadTerms

_BATCH = 1024  # images encoded at once


def encodings_to_release(
    encoder: nn.Module,
    records: Records,
    order: np.ndarray,
    terms: UploadTerms,
    projection: Projection | None,
    stream: Stream,
) -> np.ndarray:
    """Plain (N, *encoding) float32, or (N, projection-size) projected, clipped and noised; in `order`.

    `order`: a permutation of the records' positions, drawn anew for each release. Records lie in their file
    as the hospital stored them, by class or by patient, and a place in that order would say what noise on
    labels and encodings hides.
    """
    encoded = encode_records(encoder, records, order)
    if terms.encoding_noise_multiplier is None:
        return encoded
    assert projection is not None  # a run that noises encodings projects them
    return noised(project_and_clip(encoded, projection), terms.encoding_noise_multiplier, stream)


def labels_to_release(records: Records, order: np.ndarray, terms: UploadTerms, stream: Stream) -> np.ndarray:
    """(N,) int64, in the clear or by randomised response; in `order`."""
    labels: np.ndarray = records.labels(order).numpy()
    if not terms.label_epsilon:
        return labels
    return randomised_response(labels, terms.label_epsilon, terms.classes, stream)


def diverged(encoder: nn.Module) -> str:
    """Why `encoder` can't be used; empty if it can.

    Looks at its weights alone, so that no record decides whether a release is made. Weights that pass map
    every image to finite numbers.
    """
    for value in encoder.state_dict().values():
        if not bool((value.abs() <= MAX_WEIGHT).all()):
            return f"training has diverged: a weight of the encoder is not finite or above {MAX_WEIGHT:g}"
    return ""


@torch.inference_mode()
def encode_records(encoder: nn.Module, records: Records, order: np.ndarray) -> np.ndarray:
    """Encodings (N, *encoding) float32 of the records at the positions `order`.

    Raises:
        ArithmeticError: one is not finite.
    """
    parts = [encoder(records.images(order[positions])).numpy() for positions in batches(records)]
    encoded = np.concatenate(parts)
    if not np.isfinite(encoded).all():
        raise ArithmeticError("encodings are not finite")
    return encoded


def batches(records: Records) -> list[np.ndarray]:
    """Positions of all `records`, in order, up to 1,024 at a time."""
    size = images_at_once(_BATCH, *records.images(np.arange(0)).shape[2:])
    return np.split(np.arange(len(records)), range(size, len(records), size))
