"""Similarity of images and their encodings: the paper's cosine beside reference values.

Pixels are all positive, so two unrelated images already have a high cosine. A cosine is therefore
never reported without its centred form and its value for mismatched pairs. None of them bounds what an
attacker can do: an orthogonal map of the image has a cosine near 0 and can be inverted exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_images


@dataclass(frozen=True)
class SimilarityReport:
    """Similarity of `records` images and their encodings; cosines in [-1, 1], `retrieval_top1` in [0, 1].

    `cosine`: mean over matched pairs. `cosine_centred`: the same with each coordinate's mean over the
    records removed, from both sides. `cosine_mismatched`: mean of the plain cosine over all mismatched
    pairs. `retrieval_top1`: the share of encodings whose own image is the most similar
    of all by centred cosine; guessing gives 1 / records.
    """

    cosine: float
    cosine_centred: float
    cosine_mismatched: float
    retrieval_top1: float
    records: int


@dataclass(frozen=True)
class PairSimilarity:
    """The same, one number per pair, each (N,), with top-5 retrieval beside top-1.

    The `mismatched` ones are an encoding's mean cosine with all the other images. Retrieval is 1 if its own
    image is among the 1 or 5 most similar, and a fraction if others tie with it.
    """

    cosine: Tensor
    cosine_centred: Tensor
    cosine_mismatched: Tensor
    cosine_centred_mismatched: Tensor
    retrieval_top1: Tensor
    retrieval_top5: Tensor


def similarity(images: Tensor, encodings: Tensor) -> SimilarityReport:
    """Compare images (N, C, H, W), floats in [0, 1], with their encodings (N, *encoding).

    A vector of zeros has cosine 0 with everything.

    Raises:
        Unmeasurable: fewer than two pairs, not as many encodings as images, an image that is not in [0, 1],
            or a number that is not finite.
    """
    pairs = similarity_by_pair(images, encodings)
    return SimilarityReport(
        cosine=pairs.cosine.mean().item(),
        cosine_centred=pairs.cosine_centred.mean().item(),
        cosine_mismatched=pairs.cosine_mismatched.mean().item(),
        retrieval_top1=pairs.retrieval_top1.mean().item(),
        records=len(images),
    )


def similarity_by_pair(images: Tensor, encodings: Tensor) -> PairSimilarity:
    """As `similarity`, pair by pair.

    Raises:
        Unmeasurable: as `similarity`.
    """
    if len(images) != len(encodings) or len(images) < 2:
        raise Unmeasurable(f"needs two or more pairs, got {len(images)} images, {len(encodings)} encodings")
    check_images(images=images)
    check_finite(encodings=encodings)
    left = resize_images_to(images.double(), tuple(encodings.shape[1:]))
    right = encodings.double().flatten(1)
    plain = _unit(left), _unit(right)
    centred = _unit(*_centre(left)), _unit(*_centre(right))
    better, tied = _ranks(*centred)
    return PairSimilarity(
        cosine=(plain[0] * plain[1]).sum(1),
        cosine_centred=(centred[0] * centred[1]).sum(1),
        cosine_mismatched=_mismatched(*plain),
        cosine_centred_mismatched=_mismatched(*centred),
        retrieval_top1=((1 - better) / tied).clamp(0, 1),
        retrieval_top5=((5 - better) / tied).clamp(0, 1),
    )


def resize_images_to(images: Tensor, encoding_shape: tuple[int, ...]) -> Tensor:
    """Images (N, C, H, W) averaged down (or repeated up) to the encoding's shape, flat: (N, d).

    The same shape: unchanged. (c, h, w): `adaptive_avg_pool3d` over channels, height and width. (k,):
    `adaptive_avg_pool1d` of the flattened image.

    Raises:
        Unmeasurable: an encoding with another number of dimensions.
    """
    if tuple(images.shape[1:]) == encoding_shape:
        return images.flatten(1)
    if len(encoding_shape) == 3:
        c, h, w = encoding_shape
        return F.adaptive_avg_pool3d(images.unsqueeze(1), (c, h, w)).flatten(1)
    if len(encoding_shape) == 1:
        return F.adaptive_avg_pool1d(images.flatten(1).unsqueeze(1), encoding_shape[0]).flatten(1)
    raise Unmeasurable(f"an encoding is (k,) or (c, h, w), not {encoding_shape}")


def _centre(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows minus their mean, and the norm below which a row that is left is rounding error."""
    return rows - rows.mean(0), 1e-9 * rows.norm(dim=1, keepdim=True)


def _unit(rows: Tensor, negligible: Tensor | float = 0.0) -> Tensor:
    """Rows of length 1; rows of zeros, or no longer than `negligible`, become zeros."""
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > negligible, rows / norms, 0.0)


def _mismatched(left: Tensor, right: Tensor) -> Tensor:
    """The mean cosine of each encoding with all images but its own.

    All of them, not its neighbour alone: in sorted records that has the same class.
    """
    return (right @ left.sum(0) - (left * right).sum(1)) / (len(left) - 1)


def _ranks(images: Tensor, encodings: Tensor, block: int = 1024) -> tuple[Tensor, Tensor]:
    """For each encoding, how many images are more similar than its own, and how many as similar, its own too.

    An image that shares its place with others counts as a guess among them.
    """
    better, tied = [], []
    for start in range(0, len(encodings), block):
        cosines = encodings[start : start + block] @ images.T
        own = cosines.diagonal(start)[:, None]
        better.append((cosines > own + 1e-9).sum(1))
        tied.append((cosines >= own - 1e-9).sum(1) - better[-1])
    return torch.cat(better).double(), torch.cat(tied).double()
