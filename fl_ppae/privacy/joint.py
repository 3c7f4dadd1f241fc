"""Joint noise: every hospital adds a share, and those of the honest ones make up one epsilon's worth.

Guarantee: let h hospitals be honest in a round. What the server learns of their parts, the sum modulo 2^32 of
what they send, is within `log_rounding_distance` of post-processing of one Gaussian mechanism on the sum s of
their clipped sums, with noise of standard deviation sqrt(h) times that of a share. Adding or removing one
record of one hospital moves s by at most the clipping norm, so `events.JointGaussian` is accounted as the
Poisson-sampled Gaussian mechanism that it then is. It assumes that the other parts, and all messages of the
round, show nothing of these parts but their sum (secure aggregation).

No discrete Gaussian is needed. Hospital i sends Y_i, its s_i + N_i rounded to the public grid of step g, with
N_i normal of standard deviation sigma. Let f_i be the density of s_i + N_i + U_i, where U_i is uniform on a
cell. Then P(Y_i = k g) = g f_i(k g): a cell's probability is g times a sample of a smooth density. The law of
the sum of all Y_i is the convolution of these samples. If it were g times the samples of the convolution of
all f_i, it would be that of

    s + N + U_2 + ... + U_h, rounded to the grid, with N normal of standard deviation sqrt(h) sigma:

a Gaussian mechanism's result, to which independent noise is added before it is rounded once. That is
post-processing, at the sensitivity of s itself.

The two hardly differ. By Poisson summation, their Fourier series at a frequency w in [-pi / g, pi / g] are
prod_i sum_m F_i(w + 2 pi m / g) and sum_m prod_i F_i(w + 2 pi m / g), where F_i is the transform of f_i and
|F_i(v)| <= exp(-sigma^2 v^2 / 2). Each term that only the first has holds a factor with m != 0, where
|v| >= pi / g. Let t = pi sigma / g. The sum of |F_i| over m != 0 is at most
b = 2 exp(-t^2 / 2) / (1 - exp(-4 t^2)), so all these terms together are at most
(1 + b)^h - 1 <= h b (1 + b)^(h - 1). This bounds the difference of any one probability. Both laws lie within
t standard deviations of N and h half cells of s, except with probability exp(-t^2 / 2). So many grid points,
at most K = 2 t sqrt(h) sigma / g + h + 1, give a total variation distance of at most

    tau = K h b (1 + b)^(h - 1) / 2 + exp(-t^2 / 2).

Over d numbers and T steps, for both of two neighbouring data sets, delta grows by (1 + e^epsilon) T d tau.
`noise.grid_step` keeps sigma / g at 64 or more, where tau is below 1e-8000: no float can hold what that adds
to delta. `tests/privacy/test_joint.py` compares tau with exact convolutions on grids so coarse that it shows.

What the sampler adds counts once for each of the h shares (`privacy.noise`). The reduction modulo 2^32 is
post-processing; `check_range` refuses runs in which it could ever happen.
"""

from __future__ import annotations

import math

from fl_ppae.errors import UserError
from fl_ppae.privacy.noise import grid_step

MODULUS = 2**32
_FAR = 40  # standard deviations that the noise of all hospitals never exceeds


def log_rounding_distance(std: float, step: float, honest: int) -> float:
    """The natural logarithm of tau: of the total variation distance in one number, from above.

    Args:
        std: of one hospital's share of the noise, > 0.
        step: of the grid, > 0, in the same unit.
        honest: how many shares are added, >= 1. One alone is rounded once: the distance is then 0.
    """
    if honest == 1:
        return -math.inf
    t = math.pi * std / step
    beyond = -(t**2) / 2  # of exp(-t^2 / 2), whose value no float can hold
    aliases = 2 / -math.expm1(-4 * t**2)
    many = (honest - 1) * math.log1p(aliases * math.exp(beyond))  # of (1 + b)^(h - 1)
    points = 2 * t * math.sqrt(honest) * std / step + honest + 1
    return beyond + math.log(points * honest * aliases / 2 * math.exp(many) + 1)


def check_range(std: float, max_grad_norm: float, records: int, hospitals: int) -> None:
    """Refuse sums that would not fit into the ring, before anything is trained.

    Args:
        std: of one hospital's share.
        records, hospitals: of the whole federation; all of them may take part in a step.

    Raises:
        UserError: a number of a sum could leave the range of 32 bits.
    """
    largest = records * max_grad_norm + _FAR * std * math.sqrt(hospitals)
    if largest / grid_step(std) >= MODULUS // 2:
        raise UserError(
            f"{records:,} records in {hospitals} hospitals are too many for sums of 32 bits on a grid of so "
            f"little noise, {std / max_grad_norm:.2g} clipping norms a hospital; use a smaller target-epsilon"
        )
