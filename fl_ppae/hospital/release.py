"""What a hospital releases of one part of its records: encodings, and for the train part labels.

Guarantee: that of `UploadTerms.events`, provided they were announced before this is called: the Gaussian
mechanism on encodings (`privacy.encodings`), randomised response on labels (`privacy.labels`). Anything
that the terms leave plain is released unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fl_ppae.data.records import Records
from fl_ppae.privacy.encodings import Projection, noised, project_and_clip
from fl_ppae.privacy.labels import randomised_response
from fl_ppae.privacy.ledger import UploadTerms
from fl_ppae.privacy.randomness import Stream


def encodings_to_release(
    encoder: nn.Module,
    records: Records,
    terms: UploadTerms,
    projection: Callable[[], Projection],
    stream: Stream,
) -> np.ndarray:
    """Plain (N, *encoding) float32, or (N, projection-size) projected, clipped and noised."""
    encoded = encode_records(encoder, records)
    if terms.encoding_noise_multiplier is None:
        return encoded
    return noised(project_and_clip(encoded, projection()), terms.encoding_noise_multiplier, stream)


def labels_to_release(records: Records, terms: UploadTerms, stream: Stream) -> np.ndarray:
    """(N,) int64, in the clear or by randomised response."""
    labels: np.ndarray = records.labels(slice(None)).numpy()
    if not terms.label_epsilon:
        return labels
    return randomised_response(labels, terms.label_epsilon, terms.classes, stream)


@torch.inference_mode()
def encode_records(encoder: nn.Module, records: Records) -> np.ndarray:
    """Encodings (N, *encoding) float32 of all `records`."""
    parts = [encoder(records.images(positions)).numpy() for positions in batches(len(records))]
    return np.concatenate(parts)


def batches(records: int, size: int = 1024) -> list[np.ndarray]:
    """Positions of all `records`, in order, `size` at a time."""
    return np.split(np.arange(records), range(size, records, size))
