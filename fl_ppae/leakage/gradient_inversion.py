"""Images from the gradient of one batch: optimised until their own gradient matches the one observed.

Geiping et al. 2020 (arXiv:2003.14053): cosine distance of the gradients plus total variation, by Adam on
the gradient's sign; after Zhu et al. 2019 (arXiv:1906.08935), who match by squared distance.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.gradients import encoder_gradient
from fl_ppae.leakage.ranges import check_images, check_paired
from fl_ppae.models.objectives import LocalModel, Objective

_RATE = 0.03  # of Adam, pixels in [0, 1]
_DROPS = (3 / 8, 5 / 8, 7 / 8)  # of the steps; the rate falls to a tenth at each


def invert_gradient(
    model: LocalModel,
    seen: Tensor,
    labels: Tensor,
    objective: Objective,
    start: Tensor,
    *,
    steps: int,
    tv_weight: float,
) -> Tensor:
    """Images (N, C, H, W) in [0, 1] whose encoder gradient, as a batch, is nearly `seen` (P,).

    Args:
        model: the encoder and the partner with which the gradient was made.
        labels: (N,) of the batch; only used by an objective that learns them.
        start: (N, C, H, W), where the search starts; only the number and shape of the images must be right.
        steps: of Adam.
        tv_weight: of the total variation, the mean absolute difference of neighbouring pixels.

    Raises:
        Unmeasurable: the gradient is not finite, or no step of the search was; `start` is no image in [0, 1].
    """
    check_finite(gradient=seen)
    check_images(start=start)
    check_paired(start=start, labels=labels)
    direction = _direction(seen)
    images = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([images], lr=_RATE)
    milestones = [int(part * steps) for part in _DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    best, least = start, math.inf
    for _ in range(steps):
        gradient = encoder_gradient(model, images, labels, objective, differentiable=True)
        distance = 1 - _direction(gradient) @ direction
        loss = distance + tv_weight * _total_variation(images)
        if loss.item() < least:
            best, least = images.detach().clone(), loss.item()
        (slope,) = torch.autograd.grad(loss, images)
        images.grad = slope.sign()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    if steps and not least < math.inf:
        raise Unmeasurable("no step of the search had a finite distance: nothing can be measured on it")
    return best


def _direction(gradient: Tensor) -> Tensor:
    """The gradient (P,) as float64 of length 1, however small it is; zeros stay zeros.

    `torch.cosine_similarity` takes a norm below 1e-8 for 1e-8, and float32 squares vanish below 1e-23.
    """
    exact = gradient.double()
    length = exact.norm()
    return exact / length if length > 0 else exact


def in_best_order(originals: Tensor, made: Tensor) -> Tensor:
    """The reconstructions (N, C, H, W) in the order that fits the originals best by squared error.

    A batch's gradient doesn't depend on its order. Matching looks at the originals, in the attacker's favour.

    Raises:
        Unmeasurable: one is no float image in [0, 1], or there are not as many of both.
    """
    check_images(originals=originals, made=made)
    check_paired(originals=originals, made=made)
    cost = torch.cdist(originals.flatten(1).double(), made.flatten(1).double()) ** 2
    return made[torch.from_numpy(linear_sum_assignment(cost.numpy())[1])]


def _total_variation(images: Tensor) -> Tensor:
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    return down + across
