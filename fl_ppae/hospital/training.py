"""One round of a hospital's local training: Poisson batches, per-sample gradients, clip, noise, step.

Per-sample gradients come from `privacy.per_sample`, clipping and noise from `privacy.clipping`; the step
is Adam on the noised mean, which is post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_ppae.config import RunConfig
from fl_ppae.data.records import Records, resident
from fl_ppae.data.registry import spec_of
from fl_ppae.hardware import CPU, device_of, exact_float32, uses_bfloat16
from fl_ppae.hospital.physical_batches import (
    full_batch,
    layout_of,
    padded,
    padded_sizes,
    physical_batches,
)
from fl_ppae.hospital.watch import current_watch
from fl_ppae.models.augment import DRAWS, augmented
from fl_ppae.models.isolation import check_isolated
from fl_ppae.models.objectives import OBJECTIVES, LocalModel, Objective
from fl_ppae.privacy.clipping import Rows, clipped_sum
from fl_ppae.privacy.noise import add_noise
from fl_ppae.privacy.per_sample import PerSampleGradients, half_precision
from fl_ppae.privacy.randomness import Stream, Streams, poisson_batch
from fl_ppae.privacy.scopes import SCOPES, Scope
from fl_ppae.privacy.terms import Terms


@dataclass(frozen=True)
class TrainingTerms:
    """What one round does, fixed by the plan.

    Attributes:
        noise_multiplier: ignored if the scope adds no noise.
        sample_rate: Poisson; the mean gradient divides by the *expected* batch, records * sample_rate.
        steps: optimiser steps this round; an empty batch is a step too.
        augmentations: 0, or how many augmented copies of a record its gradient is the mean of
            (arXiv:2204.13650). It is clipped afterwards, so that nothing else changes.
        any_way_up: a copy may be mirrored and turned.
        trains: which layers of the scope's modules learn, as the key; the others are as if frozen.
        bfloat16: run the layers, and form per-sample gradients, in bfloat16; clipping and sums stay float32.
        device: where layers run; batches and noise are always drawn on the processor.
    """

    scope: Scope
    objective: Objective
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    learning_rate: float
    bfloat16: bool = False
    device: torch.device = CPU
    trains: str = "all"
    augmentations: int = 0
    any_way_up: bool = False


Moments = dict[str, Tensor]
"""Adam's moments and step counts, by "optimiser.parameter.name"."""


def round_terms(terms: Terms, config: RunConfig) -> TrainingTerms:
    """What each round of a run does.

    Raises:
        UserError: as `device_of`.
    """
    device = device_of(config.device)
    return TrainingTerms(
        SCOPES[terms.scope],
        OBJECTIVES[config.objective],
        terms.own_noise_multiplier or 0.0,
        terms.max_grad_norm,
        terms.sample_rate,
        terms.steps,
        config.learning_rate,
        uses_bfloat16(config.precision, device),
        device,
        config.trains,
        config.augmentations,
        spec_of(config).any_way_up,
    )


@dataclass(frozen=True)
class Diagnostics:
    """Un-noised statistics of a round, averaged over its steps. They have no guarantee.

    Attributes:
        loss: per record. clipped_fraction: of records, in [0, 1].
        signal_to_noise: L2 norm of the clipped sum / expected L2 norm of the noise on it.
    """

    loss: float
    clipped_fraction: float
    signal_to_noise: float


def train_round(
    model: LocalModel,
    records: Records,
    terms: TrainingTerms,
    streams: Streams,
    moments: Moments | None = None,
) -> tuple[Moments, Diagnostics]:
    """Train `model`, which is on the processor before and after, in place for `terms.steps` steps.

    Guarantee (scopes with `formal`): the trained parameters are one release of `terms.steps`
    Poisson-sampled Gaussian mechanisms, add-or-remove-one record, at `terms.noise_multiplier`.
    The diagnostics and Adam's moments are outside it and stay in the hospital.

    Args:
        moments: those that the last round returned.

    Returns:
        The moments for the next round, and diagnostics.
    """
    trainer = LocalTrainer(model, terms, terms.sample_rate * len(records), moments)
    records = resident(records, terms.device)
    signal_to_noise = 0.0
    for _ in range(terms.steps):
        batch = noised_batch(trainer, records, terms, streams)
        signal_to_noise += batch.signal_to_noise
        trainer.step(batch.released)
    moments = trainer.moments()
    trainer.close()
    return moments, trainer.diagnostics(signal_to_noise / terms.steps)


class NoisedBatch(NamedTuple):
    """One release: a noised clipped gradient sum, a float64 tensor for each parameter to be noised.

    Attributes:
        signal_to_noise: of this release, as in `Diagnostics`; it has no guarantee.
    """

    released: list[Tensor]
    signal_to_noise: float


def noised_batch(
    trainer: LocalTrainer, records: Records, terms: TrainingTerms, streams: Streams
) -> NoisedBatch:
    """Draw one Poisson batch of `records`, which are on `terms.device`, and release its clipped sum, noised.

    Guarantee (scopes with `formal`): `released` is one Poisson-sampled Gaussian mechanism, add-or-remove-one
    record, at `terms.noise_multiplier`.
    """
    watch = current_watch()
    candidates = len(records) + (watch.slots if watch is not None else 0)
    batch = poisson_batch(streams.sampling, candidates, terms.sample_rate)
    sums = trainer.clipped_sums(records, batch[batch < len(records)], _draws(len(records), terms, streams))
    if watch is not None:
        drawn = batch[batch >= len(records)] - len(records)
        _accumulate(watch.gradients(drawn), sums, terms.max_grad_norm, 0)
    released = noised(sums, terms, streams.noise)
    if watch is not None:
        watch.observe(sums, released)
    return NoisedBatch(released, _signal_to_noise(sums, terms))


def _draws(records: int, terms: TrainingTerms, streams: Streams) -> Tensor | None:
    """(records, augmentations, DRAWS) for one step: a record's own, whoever else is in the batch."""
    if not terms.augmentations:
        return None
    uniform = streams.augmentation.uniform(records * terms.augmentations * DRAWS)
    return torch.from_numpy(uniform).view(records, terms.augmentations, DRAWS)


class LocalTrainer:
    """A model in training on `terms.device`. A step is `clipped_sums`, noise added to them, then `step`.

    Attributes:
        totals: loss, clipped records and records of all batches so far, un-noised.

    Raises:
        TypeError: as `check_isolated` and `PerSampleGradients`, if gradients are to be clipped.
    """

    def __init__(
        self,
        model: LocalModel,
        terms: TrainingTerms,
        expected_batch: float,
        moments: Moments | None = None,
    ) -> None:
        exact_float32(terms.device)
        model.to(terms.device)
        scope = terms.scope
        if scope.noised:
            check_isolated(model)
        model.requires_grad_(False)
        noised = model.part(scope.noised, terms.trains).requires_grad_(True)
        plain = model.part(scope.plain, terms.trains).requires_grad_(True)
        self._gradients = (
            PerSampleGradients(noised, bfloat16=terms.bfloat16, copies=_copies(terms))
            if scope.noised
            else None
        )
        self._model = model
        self._layout = layout_of(model)
        self._noised, self._plain = list(noised.parameters()), list(plain.parameters())
        groups = [group for group in (self._noised, self._plain) if group]
        self._optimisers = [torch.optim.Adam(group, lr=terms.learning_rate, fused=True) for group in groups]
        _restore(self._optimisers, moments or {})
        self._terms = terms
        self._expected_batch = expected_batch
        self.totals = np.zeros(3)

    def clipped_sums(self, records: Records, batch: np.ndarray, draws: Tensor | None = None) -> list[Tensor]:
        """The clipped gradient sum over the positions `batch`: one tensor per parameter to be noised.

        Gradients of modules that learn without noise are kept for `step`. `draws`: (len(records),
        augmentations, DRAWS), for `augmented`; None if the terms augment nothing.
        """
        sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in self._noised]
        device = self._terms.device
        for positions, size in physical_batches(batch, self._sizes(records)):
            present = records.images(positions).to(device)
            count = len(present)  # fewer than positions, if some slots are empty
            images, labels = padded(present, size), padded(records.labels(positions).to(device), size)
            if draws is not None:
                images, labels = self._copied(images, labels, padded(draws[positions], size))
            images = images.contiguous(memory_format=self._layout)
            with half_precision(self._terms.bfloat16, device):
                outputs = self._model(images)
            losses = self._terms.objective.loss(outputs.float(), images, labels)
            losses = losses.view(size, -1).mean(1)[:count]
            losses.sum().backward()
            clipped = 0
            if self._gradients is not None:
                clipped = _accumulate(self._gradients.take(), sums, self._terms.max_grad_norm, count)
            self.totals += (float(losses.detach().sum()), clipped, count)
        return sums

    def _copied(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Each record's augmented copies, one after another, with its label."""
        copies = _copies(self._terms)
        images = images.repeat_interleave(copies, 0)
        images = augmented(images, draws.flatten(0, 1), any_way_up=self._terms.any_way_up)
        return images, labels.repeat_interleave(copies, 0)

    def _sizes(self, records: Records) -> Sequence[int]:
        """Sizes of physical batches. Any size is safe if nothing is clipped."""
        terms = self._terms
        image, copies = records.images(np.arange(1)).shape[1:], _copies(terms)
        if self._gradients is None:
            return range(1, full_batch(terms.device, image, copies) + 1)
        label = records.labels(np.arange(1)).shape[1:]
        return padded_sizes(
            self._model, terms.objective, self._layout, image, label, bfloat16=terms.bfloat16, copies=copies
        )

    def plain_sums(self) -> list[Tensor]:
        """The last batch's gradient sums for modules that learn without noise; zeros for an empty batch."""
        return [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self._plain
        ]

    def step(self, released: list[Tensor]) -> None:
        """Take one Adam step on the noised sums `released` and the plain gradients of the last batch."""
        for parameter, total in zip(self._noised, released, strict=True):
            parameter.grad = (total / self._expected_batch).to(parameter.dtype)
        for parameter, total in zip(self._plain, self.plain_sums(), strict=True):
            parameter.grad = total / self._expected_batch
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def moments(self) -> Moments:
        """Adam's moments, on the processor: first for noised modules, then for plain ones."""
        return {
            f"{which}.{number}.{name}": value.to(CPU)
            for which, optimiser in enumerate(self._optimisers)
            for number, values in optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }

    def diagnostics(self, signal_to_noise: float) -> Diagnostics:
        """The statistics of all batches so far, beside their mean `signal_to_noise`."""
        loss, clipped, seen = self.totals.tolist()
        seen = max(seen, 1.0)
        return Diagnostics(loss / seen, clipped / seen, signal_to_noise)

    def close(self) -> None:
        """Remove the hooks and return the model to the processor."""
        if self._gradients is not None:
            self._gradients.remove()
        self._model.to(CPU)


def _restore(optimisers: list[torch.optim.Adam], moments: Moments) -> None:
    """Restore the moments alone: a whole state dict would also bring the last learning rate."""
    states: list[dict[int, Moments]] = [{} for _ in optimisers]
    for key, value in moments.items():
        which, number, name = key.split(".")
        states[int(which)].setdefault(int(number), {})[name] = value
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def noised(sums: list[Tensor], terms: TrainingTerms, stream: Stream) -> list[Tensor]:
    """One step's release: clipped sums with Gaussian noise of std noise_multiplier * max_grad_norm."""
    return add_noise(sums, _noise_std(terms), stream) if sums else []


def _copies(terms: TrainingTerms) -> int:
    """Rows of a physical batch that are one record's."""
    return max(1, terms.augmentations)


def _noise_std(terms: TrainingTerms) -> float:
    return terms.noise_multiplier * terms.max_grad_norm


def _accumulate(gradients: Sequence[Rows], sums: list[Tensor], max_grad_norm: float, count: int) -> int:
    """Add the clipped per-sample gradients of one physical batch to `sums`.

    Returns how many of its first `count` records were clipped.
    """
    clipped = clipped_sum(gradients, max_grad_norm)
    for total, part in zip(sums, clipped.total, strict=True):
        total.add_(part)
    return int((clipped.norms[:count] > max_grad_norm).sum())


def _signal_to_noise(sums: list[Tensor], terms: TrainingTerms) -> float:
    if not sums:
        return 0.0
    signal = float(torch.stack([total.square().sum() for total in sums]).sum().sqrt())
    size = sum(total.numel() for total in sums)
    return signal / (_noise_std(terms) * size**0.5)
