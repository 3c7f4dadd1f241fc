"""Encoder gradients, as computed by an attacker who has encoder and partner.

Partner: the decoder (objective reconstruction) or the task head that the encoder learns with.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fl_ppae.leakage.finite import check_finite
from fl_ppae.models.objectives import LocalModel, Objective
from fl_ppae.privacy.clipping import clipped_sum
from fl_ppae.privacy.scopes import Scope

_NUMBERS_AT_ONCE = 2**23  # of per-record gradients: 32 MiB
_RECORDS_AT_ONCE = 128
_RIDGE = 0.1  # of the mean eigenvalue; on BloodMNIST 0.01 and 1 found members a little less well


def encoder_gradient(
    model: LocalModel, images: Tensor, labels: Tensor, objective: Objective, *, differentiable: bool = False
) -> Tensor:
    """The gradient (P,) of the batch's mean loss by the encoder's parameters, flat and in their order.

    `differentiable`: it can itself be differentiated by the images (N, C, H, W).
    """
    loss = objective.loss(model(images), images, labels).mean()
    parts = torch.autograd.grad(loss, list(model.encoder.parameters()), create_graph=differentiable)
    return torch.cat([part.flatten() for part in parts])


def record_gradients(
    model: LocalModel, images: Tensor, labels: Tensor, objective: Objective
) -> Iterator[Tensor]:
    """Each record's encoder gradient, in parts (n, P) of up to 128 records, in the records' order."""
    parameters = {name: value.detach() for name, value in model.encoder.named_parameters()}
    size = sum(value.numel() for value in parameters.values())
    rows = max(1, min(_RECORDS_AT_ONCE, _NUMBERS_AT_ONCE // size))
    per_record = _per_record(model.encoder, model.partner, objective)
    for some, their_labels in zip(images.split(rows), labels.split(rows), strict=True):
        parts = per_record(parameters, some, their_labels)
        yield torch.cat([parts[name].flatten(1) for name in parameters], 1).detach()


def noised_encoder_gradient(
    model: LocalModel,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    max_grad_norm: float,
    noise_std: float,
    scope: Scope,
    generator: torch.Generator,
) -> Tensor:
    """As `encoder_gradient`, but with each record's gradient clipped and the sum noised, as in DP-SGD.

    Args:
        max_grad_norm: of a record's gradient.
        noise_std: of the noise on the sum.
        scope: which modules' gradients are clipped jointly with the encoder's; the encoder's alone is
            returned.
    """
    parameters = list(model.part(scope.noised).parameters())
    grads: list[list[Tensor]] = []
    for position in range(len(images)):
        row = slice(position, position + 1)
        loss = objective.loss(model(images[row]), images[row], labels[row]).sum()
        grads.append(list(torch.autograd.grad(loss, parameters)))
    stacked = [torch.stack(parts) for parts in zip(*grads, strict=True)]
    total = clipped_sum(stacked, max_grad_norm).total
    own = len(list(model.encoder.parameters()))  # the encoder's come first
    flat = torch.cat([part.flatten() for part in total[:own]]).float()
    noise = torch.randn(flat.shape, generator=generator) * noise_std
    return (flat + noise) / len(images)


def alignment(gradients: Tensor, update: Tensor) -> Tensor:
    """Cosine (n,) of an update (P,) with each record's descent direction, minus its gradient (n, P).

    Of gradients of any size; 0 with a gradient of zeros.

    Raises:
        Unmeasurable: a number that is not finite.
    """
    check_finite(gradients=gradients, update=update)
    return -(_of_length_one(gradients) @ _of_length_one(update))


def _of_length_one(rows: Tensor) -> Tensor:
    """Rows (..., P) divided by their lengths in float64, since squares of float32 vanish below 1e-23."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float64)
    return torch.where(lengths > 0, rows / lengths, 0.0).float()


def _per_record(encoder: nn.Module, partner: nn.Module, objective: Objective):  # type: ignore[no-untyped-def]
    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        output = partner(functional_call(encoder, parameters, (image[None],)))
        return objective.loss(output, image[None], label[None]).sum()

    return vmap(grad(loss), in_dims=(None, 0, 0))


def whitened(direction: Tensor, population: Tensor) -> Tensor:
    """A direction (P,) in which what many records' gradients have in common is damped.

    The inverse of (X'X / n + r I) applied to it, X (n, P) the centred gradients of `population`, and r a
    tenth of the mean of the n eigenvalues: the linear score that best tells whether one record's gradient
    is in a sum over a batch of such records, since batches vary as their records do. The size of the
    population's gradients makes no difference.

    Raises:
        Unmeasurable: a number that is not finite.
    """
    check_finite(direction=direction, population=population)
    centred = population - population.mean(0)
    centred = centred / (centred.abs().max() or 1.0)  # products of small float32 numbers would vanish
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    values = values.clamp(min=0)
    ridge = _RIDGE * values.mean() or 1.0  # of gradients that are all the same
    shown = vectors @ ((vectors.T @ (centred @ direction).double()) / (values + ridge))
    return direction - centred.T @ shown.float()
