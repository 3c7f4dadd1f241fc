"""Steps, sampling and noise: a correct training passes, and each fault is named."""

import numpy as np
import pytest

from fl_ppae.epsilon_audit.canaries import lay_out
from fl_ppae.epsilon_audit.checks import PASSED, Checks

LAYOUT = lay_out([(90, 30), (30,), (600,)], 800)
NUMBERS = int(LAYOUT.starts[-1])
STEPS, STD = 24, 2.0
RNG = np.random.default_rng


def releases(seed: int = 0, std: float = STD) -> np.ndarray:
    """(steps, d): noise and some signal."""
    rng = RNG(seed)
    return rng.normal(0, std, (STEPS, NUMBERS)) + 0.3 * (rng.random((STEPS, NUMBERS)) < 0.2)


def seen(sums: np.ndarray, batches: list[np.ndarray] | None = None) -> Checks:
    checks = Checks(LAYOUT)
    for step, total in enumerate(sums):
        checks.drew(batches[step] if batches is not None else np.array([], np.int64))
        checks.released(total)
    return checks


def poisson(rate: float, steps: int = STEPS, seed: int = 0) -> list[np.ndarray]:
    rng = RNG(seed)
    return [np.flatnonzero(rng.random(800) < rate) for _ in range(steps)]


@pytest.mark.parametrize("seed", range(20))
def test_a_correct_training_passes(seed: int) -> None:
    checks = seen(releases(seed), poisson(0.3, seed=seed))
    assert {checks.steps(STEPS), checks.sampling(0.3), checks.noise(STD)} == {PASSED}


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 60])
def test_poisson_sampling_passes_at_every_rate(rate: float, steps: int) -> None:
    checks = Checks(LAYOUT)
    for batch in poisson(rate, steps, seed=steps):
        checks.drew(batch)
    assert checks.sampling(rate) == PASSED


def test_a_step_that_was_not_paid_for_is_named() -> None:
    assert seen(releases()).steps(STEPS - 1) == "24 steps were trained, 23 are in the ledger"


def test_a_higher_rate_than_the_ledgers_is_named() -> None:
    assert "the ledger says 0.3000" in seen(releases(), poisson(0.36)).sampling(0.3)


def test_batches_of_one_size_are_named() -> None:
    rng = RNG(0)
    fixed = [rng.permutation(800)[:240] for _ in range(STEPS)]
    assert "sizes of batches" in seen(releases(), fixed).sampling(0.3)


def test_shuffled_epochs_are_named() -> None:
    """Every slot once in four batches, in batches of random size."""
    rng = RNG(0)
    batches = []
    for _ in range(STEPS // 4):
        where = rng.integers(0, 4, 800)
        batches += [np.flatnonzero(where == batch) for batch in range(4)]
    assert "that a slot is in" in seen(releases(), batches).sampling(0.25)


def test_noise_that_is_too_small_is_named() -> None:
    assert "a release spreads less" in seen(releases(std=0.8 * STD)).noise(STD)


def test_one_parameter_of_one_step_without_noise_is_named() -> None:
    sums = releases()
    sums[7, LAYOUT.starts[1] : LAYOUT.starts[2]] = 0
    assert "a release spreads less" in seen(sums).noise(STD)


def test_noise_that_is_used_twice_is_named() -> None:
    sums = releases()
    sums[20] += 0.5 - sums[20] + sums[3] + 0.3 * RNG(1).normal(size=NUMBERS)
    assert "two releases" in seen(sums).noise(STD)
