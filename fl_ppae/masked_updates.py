"""How updates become vectors of the ring, and the sum of all hospitals' vectors a mean.

A hospital adds its *summand*, one float64 number for each of an update's:

| a round is | noise | summand | the mean is the sum / |
|---|---|---|---|
| passes | own | records * (trained - sent weights) | records of all who took part |
| one step | own | noised sum / sample rate | records of all who took part |
| one step | joint | noised sum, on the grid of its noise | sample rate * records of all who took part |

With own noise a summand is rounded to a public step and clipped to the hospital's part of the ring, both of
which post-process a release. The step is chosen so that nothing is clipped: `_largest_summand` bounds them.
The mean is then wrong by at most n * step / 2 / records. With joint noise the step is that of the noise's
grid, and the sum is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from fl_ppae.config import RunConfig
from fl_ppae.messages import Shapes
from fl_ppae.privacy.noise import grid_step
from fl_ppae.privacy.terms import Terms
from fl_ppae.secagg.ring import HALF, decode, encode

# Adam moves a weight by at most (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) = 7.3 learning rates a step,
# whatever the gradients (Cauchy-Schwarz on its two moving averages, arXiv:1412.6980, section 2.1).
_ADAM = 8.0
_TAIL = 40.0  # standard deviations of noise; one number in 1e349 is beyond


def ring_step(plans: Iterable[Terms], config: RunConfig, hospitals: int) -> float:
    """The ring's step in a run of `hospitals` with these plans: a power of two.

    With joint noise it is the grid of a share, which is the same everywhere; `privacy.joint.check_range` has
    then refused sums that could leave the ring.
    """
    plans = tuple(plans)
    grids = [grid for plan in plans if (grid := noise_grid(plan)) is not None]
    return grids[0] if grids else _step_for(max(_largest_summand(plan, config) for plan in plans), hospitals)


def noise_grid(plan: Terms) -> float | None:
    """The grid of a hospital's own share of joint noise; None with own noise."""
    if not plan.honest or plan.own_noise_multiplier is None:
        return None
    return grid_step(plan.own_noise_multiplier * plan.max_grad_norm)


def vector_of(summand: np.ndarray, plan: Terms, step: float, hospitals: int) -> np.ndarray:
    """A hospital's summand (d,) in the ring, (d,) uint32."""
    if noise_grid(plan) is None:
        most = _part(hospitals) * step
        summand = np.clip(summand, -most, most)
    return encode(summand, step)


def divisor_of(plan: Terms) -> float:
    """What the sum is divided by for each hospital that took part."""
    return plan.records if noise_grid(plan) is None else plan.records * plan.sample_rate


def _largest_summand(plan: Terms, config: RunConfig) -> float:
    """A public bound on the numbers of a hospital's summand, with own noise."""
    if not config.local_steps:
        return plan.records * _ADAM * config.learning_rate * plan.steps
    noise = _TAIL * (plan.noise_multiplier or 0.0)
    return (plan.records + noise) * plan.max_grad_norm / plan.sample_rate


def _step_for(largest: float, hospitals: int) -> float:
    """The smallest power of two in steps of which `hospitals` summands up to `largest` fit the ring."""
    return 2.0 ** math.ceil(math.log2(largest / _part(hospitals)))


def mean_of(total: np.ndarray, step: float, divisor: float, shapes: Shapes) -> dict[str, np.ndarray]:
    """The sum (d,) uint32 of the hospitals' vectors, decoded and divided: float64 arrays of `shapes`."""
    values = decode(total, step) / divisor
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    parts = np.split(values, ends)
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def flat(arrays: Mapping[str, Tensor], shapes: Shapes) -> np.ndarray:
    """(d,) float64: all numbers of the arrays, in the order of `shapes`."""
    return np.concatenate([arrays[name].double().numpy().reshape(-1) for name in shapes])


def length_of(shapes: Shapes) -> int:
    """d: how many numbers an update of these shapes has."""
    return sum(math.prod(shape) for shape in shapes.values())


def _part(hospitals: int) -> int:
    """Steps on either side of 0 that each of `hospitals` has in the ring."""
    return (HALF - 1) // hospitals
