"""One round of a hospital's local training: Poisson batches, per-sample gradients, clip, noise, step.

Per-sample gradients come from Opacus (arXiv:2109.12298); clipping and noise from `privacy.clipping`;
the step is Adam on the noised mean, which is post-processing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fl_ppae.config import RunConfig
from fl_ppae.data.hospital import Records
from fl_ppae.privacy.clipping import clipped_sum, gaussian_noise
from fl_ppae.privacy.ledger import Terms
from fl_ppae.privacy.randomness import Streams, poisson_batch
from fl_ppae.privacy.scopes import SCOPES, Scope

PHYSICAL_BATCH = 512  # records whose per-sample gradients are in memory at once


class LocalModel(nn.Module):
    """What a hospital trains: the shared encoder and its own partner (decoder or task head)."""

    def __init__(self, encoder: nn.Module, partner: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.partner = partner

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the reconstruction (N, C, H, W) or the class scores (N, K)."""
        output: Tensor = self.partner(self.encoder(images))
        return output


@dataclass(frozen=True)
class TrainingTerms:
    """What one round does, fixed by the plan.

    Attributes:
        noise_multiplier: ignored by a scope that noises nothing.
        sample_rate: Poisson; the mean gradient divides by the *expected* batch, records * sample_rate.
        steps: optimiser steps this round; an empty batch is a step too.
    """

    scope: Scope
    objective: Literal["reconstruction", "task"]
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    learning_rate: float


# Told of every step before it is taken: the model, and the noised sums that the step is made of.
Observer = Callable[[LocalModel, list[Tensor]], None]


def round_terms(terms: Terms, config: RunConfig, server_round: int) -> TrainingTerms:
    """The round's work; the learning rate falls linearly, so that the last rounds average noise out."""
    left = max(0.0, 1 - (server_round - 1) / config.num_server_rounds)
    return TrainingTerms(
        SCOPES[terms.scope],
        config.objective,
        terms.noise_multiplier or 0.0,
        terms.max_grad_norm,
        terms.sample_rate,
        terms.steps,
        config.learning_rate * left,
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


def per_sample_loss(output: Tensor, images: Tensor, labels: Tensor, objective: str) -> Tensor:
    """(N,): mean squared error over a record's pixels, or its cross-entropy in nats."""
    if objective == "reconstruction":
        return (output - images).square().flatten(1).mean(dim=1)
    return nn.functional.cross_entropy(output, labels, reduction="none")


def train_round(
    model: LocalModel,
    records: Records,
    terms: TrainingTerms,
    streams: Streams,
    optimiser_state: list[dict[str, Any]] | None = None,
    observe: Observer | None = None,
) -> tuple[list[dict[str, Any]], Diagnostics]:
    """Train `model` in place for `terms.steps` steps.

    Guarantee (scopes with `formal`): the trained parameters are one release of `terms.steps`
    Poisson-sampled Gaussian mechanisms, add-or-remove-one record, at `terms.noise_multiplier`.
    The diagnostics and the optimiser state are outside it and stay in the hospital.

    Args:
        optimiser_state: what the last round returned, so that Adam's moments last over rounds.
        observe: for audits; sees what the guarantee is about (under dp-scope none: the plain sums).

    Returns:
        The optimiser state for the next round, and diagnostics.
    """
    model.partner.requires_grad_(terms.scope.trains_partner)
    noised, plain = _split(model, terms.scope)
    wrapped = GradSampleModule(noised, batch_first=True, loss_reduction="sum") if noised else None
    forward = _forward(model, wrapped)
    groups = [list(module.parameters()) for module in (noised, plain) if module is not None]
    optimisers = [torch.optim.Adam(group, lr=terms.learning_rate) for group in groups]
    for optimiser, state in zip(optimisers, optimiser_state or [], strict=bool(optimiser_state)):
        optimiser.load_state_dict(state)
    noised_parameters = list(noised.parameters()) if noised is not None else []
    expected_batch = terms.sample_rate * len(records)
    totals = np.zeros(4)  # loss, clipped records, records, signal-to-noise
    for _ in range(terms.steps):
        batch = poisson_batch(streams.sampling, len(records), terms.sample_rate)
        sums = [torch.zeros_like(parameter) for parameter in noised_parameters]
        for positions in _physical_batches(batch):
            images, labels = records.images(positions), records.labels(positions)
            losses = per_sample_loss(forward(images), images, labels, terms.objective)
            losses.sum().backward()
            totals[0] += float(losses.detach().sum())
            totals[2] += len(positions)
            if noised_parameters:
                totals[1] += _accumulate(noised_parameters, sums, terms.max_grad_norm)
        if noised_parameters:
            std = terms.noise_multiplier * terms.max_grad_norm
            totals[3] += _signal_to_noise(sums, std)
            noise = gaussian_noise([total.shape for total in sums], std, streams.noise)
            sums = [total + draw for total, draw in zip(sums, noise, strict=True)]
            for parameter, total in zip(noised_parameters, sums, strict=True):
                parameter.grad = total / expected_batch
        if plain is not None:
            plain_sums = [_plain_sum(parameter) for parameter in plain.parameters()]
            for parameter, total in zip(plain.parameters(), plain_sums, strict=True):
                parameter.grad = total / expected_batch
        if observe is not None:
            observe(model, sums if noised_parameters else plain_sums)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    if wrapped is not None:
        wrapped.remove_hooks()
    seen = max(totals[2], 1.0)
    diagnostics = Diagnostics(totals[0] / seen, totals[1] / seen, totals[3] / terms.steps)
    return [optimiser.state_dict() for optimiser in optimisers], diagnostics


def _split(model: LocalModel, scope: Scope) -> tuple[nn.Module | None, nn.Module | None]:
    """The modules whose gradients are noised, and those that learn without noise."""
    if scope.noises_encoder:
        if scope.noises_partner:
            return model, None
        return model.encoder, model.partner if scope.trains_partner else None
    return None, model


def _forward(model: LocalModel, wrapped: GradSampleModule | None) -> Any:
    if wrapped is None:
        return model
    if wrapped._module is model:
        return wrapped
    return lambda images: model.partner(wrapped(images))


def _physical_batches(batch: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(batch), PHYSICAL_BATCH):
        yield batch[start : start + PHYSICAL_BATCH]


def _accumulate(parameters: list[nn.Parameter], sums: list[Tensor], max_grad_norm: float) -> int:
    """Add the clipped per-sample gradients of one physical batch to `sums`; how many were clipped."""
    grads = [parameter.grad_sample for parameter in parameters]  # type: ignore[attr-defined]
    clipped = clipped_sum(grads, max_grad_norm)
    for total, part in zip(sums, clipped.total, strict=True):
        total.add_(part)
    for parameter in parameters:
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter.grad = None
    return int((clipped.norms > max_grad_norm).sum())


def _signal_to_noise(sums: list[Tensor], std: float) -> float:
    signal = float(torch.stack([total.square().sum() for total in sums]).sum().sqrt())
    size = sum(total.numel() for total in sums)
    return signal / (std * size**0.5)


def _plain_sum(parameter: nn.Parameter) -> Tensor:
    """The sum of the records' gradients without noise; zero for an empty batch."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
