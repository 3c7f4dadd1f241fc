"""How far one record really moves the sums that a scope noises, for two given data sets.

Assumption of every epsilon: adding one record moves the clipped gradient sum of a step by at most
`max_grad_norm` in L2 norm, *given all that was released before* (arXiv:1607.00133, Algorithm 1, and the
adaptive composition that its accountants use). This module measures that distance for one pair of data
sets and one transcript. It can refute the assumption, never prove it: the sensitivity is the largest
value over all pairs and all transcripts.

It is the measurement behind docs/scopes.md, drawn by `scope_sensitivity.py` and checked by the tests.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital.training import LocalTrainer, TrainingTerms, noised
from fl_ppae.models.objectives import LocalModel
from fl_ppae.privacy.randomness import Streams, poisson_batch

_GREY, _GRAIN = 64, 20  # pixel values of 255


def white_among_grey(common: int) -> HospitalRecords:
    """The constructed pair: `common` grainy grey images (1, 28, 28) of class 0, then a white one of class 1.

    Similar records have similar gradients. Once the decoder reconstructs grey well, only a small remainder
    is left of each gradient, and the decoder decides where it points. A decoder that also learned from the
    white image makes everything a little too bright, so all the remainders turn together.
    """
    grain = np.random.default_rng(0).integers(-_GRAIN, _GRAIN + 1, (common, 28, 28, 1))
    images = np.concatenate([_GREY + grain, np.full((1, 28, 28, 1), 255)]).astype(np.uint8)
    labels = np.append(np.zeros(common, np.int64), 1)
    return HospitalRecords(Split(images, labels), np.arange(common + 1))


def realised_sensitivity(
    model: LocalModel,
    records: HospitalRecords,
    terms: TrainingTerms,
    streams: Streams,
    extra_joins: Sequence[bool] | None = None,
) -> list[float]:
    """L2 distance of the clipped gradient sums of two neighbours, at each step of one transcript.

    The larger data set is `records`; the smaller lacks the last of them, the extra record. Both
    hospitals start from `model`, draw the same batches of common records, and are given the same
    releases: the smaller one's noised sums. So what is noised follows one trajectory in both, as it
    must for an adversary who has seen that trajectory; what learns without noise follows each
    hospital's own records.

    Args:
        model: is not changed.
        records: at least 2; the common batch is drawn from all but the last, and may be empty.
        terms: `terms.steps` steps are replayed. Both divide by the smaller one's expected batch.
        streams: of the common batches and of the noise.
        extra_joins: for each step, whether the extra record is in the batch; None: in every one, the
            worst case.

    Returns:
        One distance a step, in the units of `terms.max_grad_norm`.

    Raises:
        ValueError: the scope noises nothing; fewer than 2 records; not one `extra_joins` a step.
    """
    joins = [True] * terms.steps if extra_joins is None else list(extra_joins)
    if not terms.scope.noised:
        raise ValueError(f"dp-scope {terms.scope.name!r} clips and noises nothing: it has no sensitivity")
    if len(records) < 2:
        raise ValueError(f"{len(records)} records; at least 2 are needed, a common one and the extra one")
    if len(joins) != terms.steps:
        raise ValueError(f"extra_joins has {len(joins)} values; expected one for each of {terms.steps} steps")
    common = len(records) - 1
    smaller, larger = (
        LocalTrainer(copy.deepcopy(model), terms, terms.sample_rate * common) for _ in range(2)
    )
    distances = []
    for with_extra in joins:
        batch = poisson_batch(streams.sampling, common, terms.sample_rate)
        neighbour = np.append(batch, common) if with_extra else batch
        sums = smaller.clipped_sums(records, batch)
        distances.append(_distance(sums, larger.clipped_sums(records, neighbour)))
        released = noised(sums, terms, streams.noise)
        for trainer in (smaller, larger):
            trainer.step(released)
    return distances


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    """Joint L2 distance over all tensors, in float64."""
    squares = [float((a.double() - b.double()).square().sum()) for a, b in zip(one, other, strict=True)]
    return math.sqrt(sum(squares))
