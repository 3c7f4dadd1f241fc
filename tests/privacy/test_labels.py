"""Randomised response: its probabilities, its guarantee, and what undoes it on average."""

import math

import numpy as np
import pytest
from scipy.stats import chisquare

from fl_ppae.privacy.labels import randomised_response, replacement_rate, transition, unbiased_weights
from fl_ppae.privacy.randomness import seeded_stream

GRID = [(0.1, 2), (1.0, 8), (2.0, 10), (5.0, 9), (20.0, 3)]


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
