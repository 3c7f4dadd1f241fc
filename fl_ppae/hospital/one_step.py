"""A round of one step: the noised gradient sum of one Poisson batch leaves the hospital; the server steps.

The model doesn't move here, and nothing of a round is kept for the next.
"""

from __future__ import annotations

from torch import Tensor

from fl_ppae.data.records import Records, resident
from fl_ppae.hospital.training import Diagnostics, LocalTrainer, TrainingTerms, noised_batch
from fl_ppae.models.objectives import LocalModel
from fl_ppae.privacy.randomness import Streams


def one_step(
    model: LocalModel, records: Records, terms: TrainingTerms, streams: Streams
) -> tuple[list[Tensor], Diagnostics]:
    """The noised sum of the clipped gradients of one batch, under a scope with `formal`.

    Guarantee: the sum is one Poisson-sampled Gaussian mechanism, add-or-remove-one record, at
    `terms.noise_multiplier`. The diagnostics are outside it.

    Returns:
        a float64 tensor for each parameter that the scope noises, in the order of `LocalModel.part`, on the
        grid of `privacy.noise`; and diagnostics.
    """
    trainer = LocalTrainer(model, terms, terms.sample_rate * len(records))
    batch = noised_batch(trainer, resident(records, terms.device), terms, streams)
    trainer.close()
    return [total.cpu() for total in batch.released], trainer.diagnostics(batch.signal_to_noise)
