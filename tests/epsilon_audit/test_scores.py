"""Scores of canaries: as good as the exact likelihood ratio, and no worse where noise is missing."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fl_ppae.epsilon_audit.canaries import COORDINATES, Layout, lay_out
from fl_ppae.epsilon_audit.scores import SumScores, WeightScores, flattened, root_mean_squares

SHAPES = [(100, 40), (100,), (60, 100), (60,), (2000,)]
CANARIES = 3000


def released(
    layout: Layout, included: np.ndarray, rate: float, spread: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One step's sums at clipping norm 1, with noise of `spread` in each parameter."""
    total = rng.normal(size=layout.starts[-1]) * np.repeat(spread, np.diff(layout.starts))
    drawn = included & (rng.random(len(included)) < rate)
    total[layout.coordinates[drawn]] += COORDINATES**-0.5
    return total


def accuracy(scores: np.ndarray, included: np.ndarray) -> float:
    return float(((scores > np.median(scores)) == included).mean())


@pytest.mark.parametrize(("rate", "steps", "sigma"), [(1.0, 1, 0.7), (1.0, 9, 2.1), (0.3, 20, 0.8)])
def test_the_score_is_as_good_as_the_exact_likelihood_ratio(rate: float, steps: int, sigma: float) -> None:
    rng, layout = np.random.default_rng(0), lay_out(SHAPES, CANARIES)
    included = rng.random(CANARIES) < 0.5
    found, exact = SumScores(layout, 1.0, rate), np.zeros(CANARIES)
    for _ in range(steps):
        total = released(layout, included, rate, np.full(5, sigma), rng)
        found.add(total)
        along = total[layout.coordinates].sum(axis=1) * COORDINATES**-0.5
        exact += np.log(rate * norm.pdf(along, 1, sigma) + (1 - rate) * norm.pdf(along, 0, sigma))
        exact -= norm.logpdf(along, 0, sigma)
    best = accuracy(exact, included)
    assert 0.6 < best < 0.95
    assert accuracy(found.scores, included) > best - 0.01


@pytest.mark.parametrize(
    "silent",
    [np.zeros(5), np.array([1.0, 1, 0, 0, 1]), np.array([1.0, 1, 1, 1, 0])],
    ids=["all", "the middle", "the last"],
)
def test_parameters_without_noise_give_canaries_away(silent: np.ndarray) -> None:
    rng, layout = np.random.default_rng(1), lay_out(SHAPES, CANARIES)
    touched = np.isin(layout.parameter, np.flatnonzero(silent == 0)).any(axis=1)
    included = rng.random(CANARIES) < 0.5
    found, noised = SumScores(layout, 1.0, 0.5), SumScores(layout, 1.0, 0.5)
    for _ in range(15):
        found.add(released(layout, included, 0.5, 4 * silent, rng))
        noised.add(released(layout, included, 0.5, np.full(5, 4.0), rng))
    assert accuracy(found.scores[touched], included[touched]) > 0.97
    assert accuracy(noised.scores[touched], included[touched]) < 0.75


def test_sums_that_are_scaled_down_as_a_whole_still_tell() -> None:
    rng, layout = np.random.default_rng(2), lay_out(SHAPES, CANARIES)
    included = rng.random(CANARIES) < 0.5
    found = SumScores(layout, 1.0, 0.5)
    for _ in range(15):
        found.add(1e-4 * released(layout, included, 0.5, np.zeros(5), rng))
    assert accuracy(found.scores, included) > 0.99


def test_weights_that_move_against_a_gradient_are_a_sign_of_it() -> None:
    rng, layout = np.random.default_rng(3), lay_out(SHAPES, CANARIES)
    encoder = layout.starts[2]
    touched = (layout.coordinates < encoder).any(axis=1)
    included = rng.random(CANARIES) < 0.5
    found = WeightScores(layout)
    for _ in range(10):
        found.add(-released(layout, included, 1.0, np.full(5, 0.5), rng)[:encoder])
    assert accuracy(found.scores[touched], included[touched]) > 0.9
    assert not found.scores[~touched].any()


def test_numbers_are_in_the_order_of_the_parameters() -> None:
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor([6.0])]
    assert flattened(tensors).tolist() == [0, 1, 2, 3, 4, 5, 6]
    squares = root_mean_squares(lay_out([(2, 3), (1,)], 1), flattened(tensors))
    assert squares == pytest.approx([np.sqrt(55 / 6), 6])
