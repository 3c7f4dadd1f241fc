"""Clipping and noise: the sensitivity that the ledger counts with, and the noise scaled by it."""

import itertools
import math

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.privacy.clipping import LARGEST_NORM, clipped_sum, gaussian_noise, on_grid, per_sample_norms
from fl_ppae.privacy.per_sample import Outer
from fl_ppae.privacy.randomness import poisson_batch, streams
from fl_ppae.privacy.scopes import SCOPES, NoGuarantee

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


def test_noise_has_the_standard_deviation_and_the_shapes_asked_for() -> None:
    shapes = [torch.Size([100, 200]), torch.Size([300]), torch.Size([10, 3, 5, 5]), torch.Size([])]
    for std in (0.05, 1.0, 30.0):
        noise = gaussian_noise(shapes, std, np.random.default_rng(1))
        assert [part.shape for part in noise] == shapes
        assert {part.dtype for part in noise} == {torch.float64}
        drawn = torch.cat([part.flatten() for part in noise]).double().numpy()
        standard_error = std / math.sqrt(len(drawn))
        assert abs(drawn.mean()) < 4 * standard_error
        assert abs(drawn.std() - std) < 4 * standard_error
        assert abs((np.abs(drawn) > 2 * std).mean() - 0.0455) < 0.006, "as often as a normal one"


@pytest.mark.parametrize("std", [1e-6, 0.7e-3, 1.0, 50.0])
def test_a_noised_sum_is_rounded_to_a_grid_that_depends_on_the_noise_alone(std: float) -> None:
    rng = np.random.default_rng(4)
    noised = torch.from_numpy(rng.normal(0, std, 1000) + rng.normal(0, std, 1000))
    rounded = on_grid(noised, std)
    assert (rounded - noised).abs().max() <= std * 2**-21
    mantissas = rounded * 2.0 ** (20 - math.floor(math.log2(std)))
    assert torch.equal(mantissas, mantissas.round())


def test_noise_differs_between_tensors_and_draws() -> None:
    rng = np.random.default_rng(1)
    size = torch.Size([5000])
    draws = [part.numpy() for _ in range(2) for part in gaussian_noise([size, size], 1.0, rng)]
    for one, other in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def drawn(seed: int, hospital: int, server_round: int) -> list[np.ndarray]:
    found = streams(seed, hospital, server_round)
    return [found.sampling.standard_normal(5000), found.noise.standard_normal(5000)]


def test_the_same_key_gives_the_same_streams() -> None:
    for one, other in zip(drawn(42, 1, 3), drawn(42, 1, 3), strict=True):
        assert np.array_equal(one, other)


def test_another_seed_hospital_round_or_purpose_gives_an_independent_stream() -> None:
    keys = [(42, 0, 1), (42, 1, 0), (42, 1, 1), (42, 0, 2), (43, 0, 1), (0, 0, 1), (2**31 - 1, 0, 1)]
    every = [stream for key in keys for stream in drawn(*key)]
    for one, other in itertools.combinations(every, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.07


def test_without_a_seed_every_stream_is_new() -> None:
    assert not np.array_equal(drawn(-1, 0, 1)[1], drawn(-1, 0, 1)[1])


def test_torch_forgets_the_upper_half_of_a_seed_and_the_noise_streams_do_not() -> None:
    low, high = (torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5 + 2**32))
    assert torch.equal(low, high), "if torch has mended this, randomness.py may say so"
    assert not np.array_equal(drawn(5, 0, 1)[1], drawn(5 + 2**32, 0, 1)[1])


def test_poisson_batches_join_each_record_at_the_accounted_rate_and_independently() -> None:
    records, rate, batches = 200, 0.15, 4000
    rng = streams(42, 0, 1).sampling
    joined = np.zeros((batches, records), dtype=bool)
    for row in joined:
        row[poisson_batch(rng, records, rate)] = True
    error = math.sqrt(rate * (1 - rate) / batches)
    assert np.abs(joined.mean(axis=0) - rate).max() < 5 * error
    sizes = joined.sum(axis=1)
    assert sizes.var() == pytest.approx(records * rate * (1 - rate), rel=0.1), "not a fixed batch size"


@pytest.mark.parametrize(("rate", "size"), [(1.0, 50), (1e-12, 0)])
def test_poisson_batches_at_the_ends_of_the_range(rate: float, size: int) -> None:
    assert len(poisson_batch(np.random.default_rng(0), 50, rate)) == size


def test_only_formal_scopes_tell_a_sensitivity() -> None:
    assert SCOPES["autoencoder"].sensitivity(2.0) == SCOPES["frozen-decoder"].sensitivity(2.0) == 2.0
    for name in ("none", "encoder"):
        with pytest.raises(NoGuarantee):
            SCOPES[name].sensitivity(2.0)
        assert not SCOPES[name].guarantee(3.0, 1e-5).formal


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


@pytest.mark.parametrize("norm", [math.nan, math.inf, 2 * LARGEST_NORM])
def test_what_is_too_large_to_be_scaled_adds_nothing(norm: float) -> None:
    total, _ = clipped_sum([torch.tensor([[norm], [0.5]])], 1.0)
    assert total[0].tolist() == pytest.approx([0.5], rel=2e-5)


@pytest.mark.parametrize("bound", [0.0, -1.0, 1e-7, math.nan])
def test_a_clipping_norm_that_rounding_could_pass_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="max_grad_norm"):
        clipped_sum([torch.ones(1, 3)], bound)
