"""Randomised response: its probabilities, its guarantee, and what undoes it on average."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.privacy.labels import randomised_response, replacement_rate, transition, unbiased_weights
from fl_ppae.privacy.randomness import seeded_stream

GRID = [(0.1, 2), (1.0, 8), (2.0, 10), (5.0, 9), (20.0, 3)]
WHOLE_RANGE = list(
    itertools.product([1e-6, 1e-3, 0.1, 1.0, 8.0, 40.0, 44.5, 50.0, 100.0], [2, 3, 10, 47, 100])
)


@pytest.mark.parametrize(("epsilon", "classes"), GRID)
def test_any_two_true_labels_give_a_released_one_with_probabilities_at_most_e_to_the_epsilon_apart(
    epsilon: float, classes: int
) -> None:
    matrix = transition(epsilon, classes)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    ratios = matrix.max(axis=0) / matrix.min(axis=0)
    np.testing.assert_allclose(ratios, math.exp(epsilon), rtol=1e-6)
    assert 0 < replacement_rate(epsilon, classes) < 1


@pytest.mark.parametrize(("epsilon", "classes"), GRID[:4])
def test_released_labels_follow_the_stated_probabilities(epsilon: float, classes: int) -> None:
    for label in (0, classes - 1):
        released = randomised_response(np.full(20_000, label), epsilon, classes, seeded_stream(label + 1))
        counts = np.bincount(released, minlength=classes)
        assert chisquare(counts, 20_000 * transition(epsilon, classes)[label]).pvalue > 1e-3


def test_a_release_is_of_whole_numbers_in_range_and_leaves_its_input_alone() -> None:
    labels = np.arange(10) % 4
    before = labels.copy()
    released = randomised_response(labels, 0.5, 4, seeded_stream(0))
    assert released.dtype == np.int64
    assert set(released.tolist()) <= set(range(4))
    assert np.array_equal(labels, before)


def test_no_labels_are_released_of_no_records() -> None:
    assert len(randomised_response(np.zeros(0, np.int64), 1.0, 4, seeded_stream(0))) == 0


@pytest.mark.parametrize(("epsilon", "classes"), GRID)
def test_the_weights_expectation_is_one_for_the_true_class_and_nought_for_the_others(
    epsilon: float, classes: int
) -> None:
    weights = unbiased_weights(np.arange(classes), epsilon, classes)
    np.testing.assert_allclose(transition(epsilon, classes) @ weights, np.eye(classes), atol=1e-9)


def test_weighted_counts_estimate_the_class_mix_that_plain_counts_miss() -> None:
    truth = np.array([0.7, 0.2, 0.1, 0.0])
    labels = np.repeat(np.arange(4), (truth * 40_000).astype(int))
    released = randomised_response(labels, 1.0, 4, seeded_stream(0))
    plain = np.bincount(released, minlength=4) / len(labels)
    undone = unbiased_weights(released, 1.0, 4).mean(axis=0)
    assert np.abs(plain - truth).max() > 0.2
    assert np.abs(undone - truth).max() < 0.02


@pytest.mark.parametrize(("epsilon", "classes"), WHOLE_RANGE)
def test_weights_sum_to_one_and_undo_the_randomisation_over_the_whole_range(
    epsilon: float, classes: int
) -> None:
    weights = unbiased_weights(np.arange(classes), epsilon, classes)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    undone = transition(epsilon, classes) @ weights
    np.testing.assert_allclose(
        undone, np.eye(classes), atol=1e-16 * np.abs(weights).sum(axis=1).max() + 1e-12
    )


@pytest.mark.parametrize("epsilon", [1e-300, 1e-15, 1e-9, 0.0, -1.0, math.nan])
def test_an_epsilon_whose_weights_do_not_fit_into_float64_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="have no weights"):
        unbiased_weights(np.arange(3), epsilon, 3)
    if epsilon > 0:
        values = {"share": "encodings", "label-epsilon": epsilon}
        with pytest.raises(UserError, match=r"label-epsilon = .* at least 1e-06"):
            RunConfig.from_flat(values)
        RunConfig.from_flat({**values, "label-epsilon": 1e-6})


@pytest.mark.parametrize(("epsilon", "classes"), [*WHOLE_RANGE, (1e-300, 3), (1e4, 3)])
def test_the_rate_that_is_drawn_never_falls_short_of_the_guarantee(epsilon: float, classes: int) -> None:
    """Streams draw multiples of 2**-64, rounded down: 10 / e^50 would be 0, and labels never redrawn."""
    parts = math.floor(math.ldexp(replacement_rate(epsilon, classes), 64))
    other = Fraction(parts, 2**64 * classes)
    ratio = (1 - Fraction(parts, 2**64) + other) / other
    assert math.log(ratio) <= epsilon * (1 + 1e-9) + 1e-13
    assert parts > 0
    unrounded = classes / (math.exp(min(epsilon, 700.0)) + classes - 1)
    assert (math.floor(math.ldexp(unrounded, 64)) == 0) == (epsilon > 48)  # the control: not rounded up
