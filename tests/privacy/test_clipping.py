"""Clipping: the sensitivity that the ledger counts with."""

import itertools
import math

import pytest
import torch
from opacus.optimizers import DPOptimizer

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.privacy.clipping import LARGEST_NORM, clipped_sum, per_sample_norms
from fl_ppae.privacy.per_sample import Outer
from fl_ppae.privacy.scopes import SCOPES

SHAPES = [((5,),), ((4, 3), (4,)), ((2, 3, 3, 3), (2,), (7, 18), (1,))]
SCALES = [1e-30, 1e-6, 0.3, 1.0, 50.0, 1e12, 1e30]
BATCHES = [0, 1, 2, 7, 64]
NORMS = [0.1, 1.0, 10.0]

# A sum of N float32 numbers is off by a few roundings of 6e-8 each, relative to what is summed: a
# thousandth of a per mille is a generous bound for N <= 64, and is all that is allowed for below.
SUMMATION = 1e-6


def gradients(shapes: tuple[tuple[int, ...], ...], count: int, scale: float, seed: int) -> list[torch.Tensor]:
    """`count` records' gradients; NaN, infinity and zeros in some of them where there are 7 or more."""
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(count, *shape, generator=generator) * scale for shape in shapes]
    if count >= 7:
        grads[0][1].view(-1)[0] = math.nan
        grads[-1][2].view(-1)[-1] = math.inf
        grads[0][3].view(-1)[-1] = -math.inf
        for grad in grads:
            grad[4] = 0
    return grads


def joint_norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def without(grads: list[torch.Tensor], record: int) -> list[torch.Tensor]:
    return [torch.cat([grad[:record], grad[record + 1 :]]) for grad in grads]


@pytest.mark.parametrize(("shapes", "bound", "scale"), itertools.product(SHAPES, NORMS, SCALES))
def test_one_record_alone_adds_at_most_the_clipping_norm(
    shapes: tuple[tuple[int, ...], ...], bound: float, scale: float
) -> None:
    """No slack at all: the margin inside `clipped_sum` covers float32."""
    for seed in range(5):
        total, _ = clipped_sum(gradients(shapes, 1, scale, seed), bound)
        assert joint_norm(total) <= bound


@pytest.mark.parametrize(("shapes", "bound", "count"), itertools.product(SHAPES, NORMS, BATCHES))
def test_adding_or_removing_one_record_moves_the_sum_by_at_most_the_clipping_norm(
    shapes: tuple[tuple[int, ...], ...], bound: float, count: int
) -> None:
    for seed, scale in enumerate(SCALES):
        grads = gradients(shapes, count, scale, seed)
        total, _ = clipped_sum(grads, bound)
        assert all(part.isfinite().all() for part in total)
        slack = SUMMATION * count * bound
        for record in range(min(count, 7)):
            neighbour, _ = clipped_sum(without(grads, record), bound)
            moved = joint_norm([a.double() - b.double() for a, b in zip(total, neighbour, strict=True)])
            assert moved <= bound + slack, (scale, record)


def test_many_records_in_one_direction_move_the_sum_by_no_more() -> None:
    """The worst case of summation: all records at the bound, and aligned."""
    for bound in NORMS:
        grads = [torch.full((64, 1000), 3.7), torch.full((64, 10, 10), 3.7)]
        total, _ = clipped_sum(grads, bound)
        neighbour, _ = clipped_sum(without(grads, 0), bound)
        moved = joint_norm([a.double() - b.double() for a, b in zip(total, neighbour, strict=True)])
        assert moved <= bound * (1 + 64 * SUMMATION)


def test_the_smallest_clipping_norm_the_configuration_takes_still_bounds_a_record() -> None:
    """Squares of 1e-23 vanish in float32: the norm of such a gradient looks like 0."""
    for bound in (1e-6, 1e-12, 1e-26):
        try:
            RunConfig.from_flat({"max-grad-norm": bound})
        except UserError:
            continue
        for scale in (1e-30, 1e-23, 1.0):
            total, _ = clipped_sum([torch.full((1, 100), scale)], bound)
            assert joint_norm(total) <= bound, (bound, scale)


def test_the_norm_is_joint_over_all_tensors() -> None:
    grads = [torch.tensor([[3.0, 0.0]]), torch.tensor([[[4.0]]])]
    assert per_sample_norms(grads).tolist() == [5.0]
    total, norms = clipped_sum(grads, 1.0)
    assert norms.tolist() == [5.0]
    assert torch.cat([part.flatten() for part in total]).tolist() == pytest.approx([0.6, 0, 0.8], rel=2e-5)


def test_a_gradient_below_the_bound_is_left_as_it_is() -> None:
    total, _ = clipped_sum([torch.tensor([[0.3, 0.4], [-0.1, 0.2]])], 1.0)
    assert total[0].tolist() == pytest.approx([0.2, 0.6], rel=2e-5)


def test_records_that_are_not_finite_add_nothing_and_spoil_nothing() -> None:
    good = torch.tensor([[1.0, 2.0]])
    bad = torch.tensor([[math.nan, 1.0], [1.0, math.inf], [-math.inf, math.inf]])
    alone, _ = clipped_sum([good], 1.0)
    mixed, _ = clipped_sum([torch.cat([bad, good])], 1.0)
    assert torch.equal(alone[0], mixed[0])


def test_no_records_sum_to_zero_in_every_shape() -> None:
    for shapes in SHAPES:
        total, norms = clipped_sum([torch.zeros(0, *shape) for shape in shapes], 1.0)
        assert [tuple(part.shape) for part in total] == list(shapes)
        assert joint_norm(total) == 0
        assert norms.shape == (0,)


@pytest.mark.parametrize(("shapes", "bound"), itertools.product(SHAPES, NORMS))
def test_the_sum_is_that_of_opacus_optimiser(shapes: tuple[tuple[int, ...], ...], bound: float) -> None:
    """Opacus divides by norm + 1e-6 and keeps no margin: equal to a few times 1e-5."""
    for scale in (0.01, 1.0, 100.0):
        generator = torch.Generator().manual_seed(3)
        grads = [torch.randn(32, *shape, generator=generator) * scale for shape in shapes]
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad_sample = grad
        optimiser = DPOptimizer(
            torch.optim.SGD(parameters, lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=bound,
            expected_batch_size=1,
        )
        optimiser.clip_and_accumulate()
        total, _ = clipped_sum(grads, bound)
        for part, parameter in zip(total, parameters, strict=True):
            torch.testing.assert_close(part.float(), parameter.summed_grad, rtol=3e-5, atol=3e-5 * bound)


def test_only_formal_scopes_give_a_formal_guarantee() -> None:
    formal = {name for name, scope in SCOPES.items() if scope.guarantee(3.0, 1e-5).formal}
    assert formal == {"frozen-decoder", "autoencoder"}


@pytest.mark.parametrize("exponent", range(-44, 39, 2))
def test_a_linear_layers_gradient_is_bounded_at_every_magnitude(exponent: int) -> None:
    """One factor as large as the other is small: products of float32 squares would vanish or overflow."""
    for other in (-44, -23, min(-exponent, 38), 0, 17, 38):
        left, right = (torch.full((1, 64), 10.0**power) for power in (exponent, other))
        for bound in (1e-6, 1e-3, 1.0):
            total, norms = clipped_sum([Outer(left, right)], bound)
            true = 64 * float(left[0, 0]) * float(right[0, 0])
            assert joint_norm(total) <= bound
            if true <= LARGEST_NORM:
                assert float(norms[0]) == pytest.approx(true, rel=1e-6)
                assert joint_norm(total) == pytest.approx(min(true, bound), rel=2e-5)


@pytest.mark.parametrize("exponent", range(-44, 39, 2))
def test_a_gradient_of_mixed_magnitudes_is_bounded(exponent: int) -> None:
    for bound in (1e-6, 1e-3, 1.0):
        row = torch.full((1, 1000), 10.0**exponent)
        row[0, ::7] = bound
        assert joint_norm(clipped_sum([row], bound).total) <= bound


@pytest.mark.parametrize("norm", [math.nan, math.inf, 2 * LARGEST_NORM, 1e20])
def test_what_is_too_large_to_be_scaled_adds_nothing(norm: float) -> None:
    total, _ = clipped_sum([torch.tensor([[norm], [0.5]])], 1.0)
    assert total[0].tolist() == pytest.approx([0.5], rel=2e-5)
    just_clipped, _ = clipped_sum([torch.tensor([[LARGEST_NORM / 2], [0.5]])], 1.0)  # the control
    assert just_clipped[0].tolist() == pytest.approx([1.5], rel=2e-5)


@pytest.mark.parametrize("bound", [0.0, -1.0, 1e-7, math.nan])
def test_a_clipping_norm_that_rounding_could_pass_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="max_grad_norm"):
        clipped_sum([torch.ones(1, 3)], bound)
