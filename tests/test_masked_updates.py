"""Updates in the ring: nothing wraps or is clipped, the error is the stated one, and a mean comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fl_ppae.config import RunConfig
from fl_ppae.masked_updates import (
    divisor_of,
    flat,
    length_of,
    mean_of,
    noise_grid,
    ring_step,
    vector_of,
)
from fl_ppae.privacy.terms import Terms

SHAPES = {"weight": (3, 4), "bias": (3,), "scale": ()}
ONE_STEP = {"local-steps": 1, "dp-scope": "frozen-decoder"}


def config_of(**keys: object) -> RunConfig:
    return RunConfig.from_flat({"learning-rate": 0.01, **keys})


def plan_of(records: int, *, honest: int = 0, noise: float | None = 2.0, clip: float = 0.1) -> Terms:
    steps = 1 if honest else 5
    return Terms("run-a", "frozen-decoder", records, noise, 0.1, steps, clip, 8.0, 1e-5, honest=honest)


@pytest.mark.parametrize("records", [(100, 100), (1, 10_000, 300), (50,) * 100])
@pytest.mark.parametrize("keys", [{}, ONE_STEP])
def test_the_mean_of_the_ring_is_the_mean_within_the_stated_error(
    records: tuple[int, ...], keys: dict[str, object]
) -> None:
    plans, config, rng = [plan_of(count) for count in records], config_of(**keys), np.random.default_rng(0)
    step = ring_step(plans, config, len(plans))
    largest = 2 * config.learning_rate  # of an update, well within the bound
    updates = [rng.uniform(-largest, largest, length_of(SHAPES)) for _ in plans]
    vectors = [
        vector_of(plan.records * update, plan, step, len(plans))
        for plan, update in zip(plans, updates, strict=True)
    ]
    total = np.sum(vectors, axis=0, dtype=np.uint32)
    found = mean_of(total, step, sum(divisor_of(plan) for plan in plans), SHAPES)
    expected = np.average(updates, axis=0, weights=records)
    values = np.concatenate([found[name].reshape(-1) for name in SHAPES])
    assert np.abs(values - expected).max() <= len(plans) * step / 2 / sum(records)
    assert {name: value.shape for name, value in found.items()} == SHAPES


def adam_moves(gradients: np.ndarray) -> float:
    """The longest of Adam's moves over these gradients (T,), in learning rates."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    adam, longest = torch.optim.Adam([weight], lr=1.0), 0.0
    for gradient in gradients:
        before = float(weight.detach())
        weight.grad = torch.tensor([gradient])
        adam.step()
        longest = max(longest, abs(float(weight.detach()) - before))
    return longest


@pytest.mark.parametrize("seed", range(4))
def test_no_gradients_make_adam_leave_the_range_of_the_ring(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert adam_moves(rng.normal(size=200) * 10.0 ** rng.integers(-6, 6, 200)) < 8
    worst = np.concatenate([np.zeros(3000), 0.9 ** -np.arange(60.0)])  # nothing, and then a burst
    assert 3 < adam_moves(worst) < 8, "the control: the bound is not far away"


def test_own_noise_is_clipped_to_a_hospitals_part_so_that_a_sum_never_wraps() -> None:
    plans = [plan_of(100)] * 7
    step = ring_step(plans, config_of(), 7)
    for sign in (1, -1):
        vectors = [vector_of(np.full(4, sign * 1e9), plan, step, 7) for plan in plans]
        total = np.sum(vectors, axis=0, dtype=np.uint32).view(np.int32)
        assert (sign * total > 0.9 * 2**31).all()


def test_shares_of_joint_noise_are_added_exactly() -> None:
    plans = [plan_of(count, honest=3) for count in (100, 300, 200)]
    step, rng = ring_step(plans, config_of(**ONE_STEP), 3), np.random.default_rng(0)
    assert step == noise_grid(plans[0])
    sums = [rng.integers(-(2**20), 2**20, length_of(SHAPES)) * step for _ in plans]
    vectors = [vector_of(one, plan, step, 3) for one, plan in zip(sums, plans, strict=True)]
    found = mean_of(np.sum(vectors, axis=0, dtype=np.uint32), step, sum(map(divisor_of, plans)), SHAPES)
    values = np.concatenate([found[name].reshape(-1) for name in SHAPES])
    assert np.array_equal(values, np.sum(sums, axis=0) / (0.1 * 600))


def test_arrays_are_put_together_in_the_order_of_the_shapes() -> None:
    arrays = {
        "scale": torch.tensor(15.0),
        "bias": torch.arange(12.0, 15.0),
        "weight": torch.arange(12.0).view(3, 4),
    }
    assert np.array_equal(flat(arrays, SHAPES), np.arange(16.0))
