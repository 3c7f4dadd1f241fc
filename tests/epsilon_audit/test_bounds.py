"""The mathematics of the one-run bound, against scipy, published values and simulation."""

import itertools

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom, binomtest

from fl_ppae.epsilon_audit.bounds import (
    best_bound,
    canaries_needed,
    guess_counts,
    lower_bound,
    p_value,
    refutable,
)

GRID = [
    (guesses, correct, confidence)
    for guesses in (1, 7, 100, 1000)
    for correct in sorted({0, guesses // 2, (3 * guesses + 3) // 4, guesses})
    for confidence in (0.9, 0.95, 0.999)
]


@pytest.mark.parametrize(("guesses", "correct", "confidence"), GRID)
def test_without_delta_it_is_the_clopper_pearson_bound(guesses: int, correct: int, confidence: float) -> None:
    test = binomtest(correct, guesses, alternative="greater")
    low = test.proportion_ci(confidence_level=confidence, method="exact").low
    found = lower_bound(correct, guesses, confidence=confidence, delta=0, canaries=guesses)
    assert float(expit(found)) == pytest.approx(max(0.5, low), abs=1e-9)


def test_known_values() -> None:
    for guesses, epsilon in ((100, 3.493), (1000, 5.809)):
        found = lower_bound(guesses, guesses, confidence=0.95, delta=0, canaries=guesses)
        assert found == pytest.approx(epsilon, abs=1e-3)
    # arXiv:2305.08846v1, Appendix D: 1,000 canaries, 75 of 100 guesses right, delta 1e-4.
    assert lower_bound(75, 100, confidence=0.95, delta=1e-4, canaries=1000) == pytest.approx(0.673, abs=1e-3)


@pytest.mark.parametrize("delta", [0, 1e-5, 1e-3])
@pytest.mark.parametrize("guesses", [20, 66, 200])
def test_the_bound_is_where_the_p_value_crosses_and_moves_the_right_way(guesses: int, delta: float) -> None:
    bounds = []
    for correct in range(guesses // 2, guesses + 1, 5):
        found = lower_bound(correct, guesses, confidence=0.95, delta=delta, canaries=200)
        bounds.append(found)
        values = [p_value(e, delta, 200, guesses, correct) for e in np.linspace(0, found + 1, 60)]
        assert all(one <= next_ + 1e-12 for one, next_ in itertools.pairwise(values)), "grows with epsilon"
        assert p_value(found + 1e-4, delta, 200, guesses, correct) > 0.05
        if found > 0:
            assert p_value(found - 1e-4, delta, 200, guesses, correct) <= 0.05
        assert found <= lower_bound(correct, guesses, confidence=0.95, delta=0, canaries=200) + 1e-9
        assert found <= lower_bound(correct, guesses, confidence=0.9, delta=delta, canaries=200)
    assert bounds == sorted(bounds)


def leaky_randomised_response(
    rng: np.random.Generator, coins: np.ndarray, epsilon: float, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """(guesses, how sure): each coin is told outright with probability delta, else by randomised response.

    (epsilon, delta)-DP in each coin, and no mechanism of that guarantee tells more about one.
    """
    told = rng.random(coins.shape) < delta
    right = told | (rng.random(coins.shape) < expit(epsilon))
    return np.where(right, coins, ~coins), told


@pytest.mark.parametrize(("epsilon", "delta"), [(0.3, 0), (1, 0), (4, 0), (1, 1e-3), (4, 1e-3), (1, 2e-2)])
def test_the_bound_holds_where_the_truth_is_known(epsilon: float, delta: float) -> None:
    rng = np.random.default_rng(0)
    canaries, repetitions = 200, 300
    coins = rng.random((repetitions, canaries)) < 0.5
    guesses, told = leaky_randomised_response(rng, coins, epsilon, delta)
    broken = 0
    for said, sure, truth in zip(guesses, told, coins, strict=True):
        # Those told outright are the surest, whether in or out.
        scores = np.where(said, 1.0, -1.0) * np.where(sure, 2.0, 1.0)
        scores += rng.uniform(-0.1, 0.1, canaries)
        broken += best_bound(scores, truth, confidence=0.95, delta=delta).epsilon > epsilon
    assert binomtest(broken, repetitions, 0.05, alternative="greater").pvalue > 0.01


def test_the_simulated_check_would_notice_a_bound_without_its_delta() -> None:
    """The leak breaks the bound at delta 0: so the test above can fail."""
    rng = np.random.default_rng(0)
    coins = rng.random((300, 200)) < 0.5
    guesses, told = leaky_randomised_response(rng, coins, 0.3, 0.1)
    broken = [
        best_bound(np.where(said, 1, -1) * (1.0 + sure), truth, confidence=0.95, delta=0).epsilon > 0.3
        for said, sure, truth in zip(guesses, told, coins, strict=True)
    ]
    assert np.mean(broken) > 0.5


def test_one_fixed_number_of_guesses_reaches_its_level_and_no_more() -> None:
    """Randomised response is the worst case at delta 0: the bound is broken in just under 5 %."""
    rng = np.random.default_rng(1)
    correct = rng.binomial(500, expit(1.0), 4000)
    bounds = [lower_bound(int(v), 500, confidence=0.95, delta=0, canaries=500) for v in correct]
    broken = np.mean(np.array(bounds) > 1.0)
    assert 0.03 < broken < 0.06


def test_choosing_the_best_of_many_numbers_of_guesses_would_break_the_level() -> None:
    """Why the numbers are few, fixed beforehand and corrected for."""
    rng = np.random.default_rng(2)
    right = rng.random((100, 200)) < expit(1.0)
    best = [
        max(lower_bound(int(v), r, confidence=0.95, delta=0, canaries=200) for r, v in enumerate(row, 1))
        for row in right.cumsum(axis=1)
    ]
    assert np.mean(np.array(best) > 1.0) > 0.1


@pytest.mark.parametrize("delta", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_the_delta_term_covers_a_mechanism_that_fails_all_at_once(epsilon: float, delta: float) -> None:
    """With probability delta every coin is told: P[right >= v] is known, and is under the p-value."""
    canaries = guesses = 300
    for correct in range(150, 301, 10):
        tail = binom.sf(correct - 1, guesses, expit(epsilon))
        exact = delta + (1 - delta) * tail
        assert p_value(epsilon, delta, canaries, guesses, correct) >= exact - 1e-15


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_the_delta_term_is_as_small_as_an_elementary_bound_allows(delta: float) -> None:
    """By Markov, P[W + F >= v] <= P[W >= v - j + 1] + E[F] / j for any j, whatever W and F share."""
    canaries = guesses = 300
    for epsilon, correct in itertools.product((0.5, 1.0, 3.0), (240, 280, 300)):
        steps = np.arange(1, correct + 1)
        markov = binom.sf(correct - steps, guesses, expit(epsilon)) + 2 * canaries * delta / steps
        assert p_value(epsilon, delta, canaries, guesses, correct) <= min(1, markov.min()) + 1e-12


def test_best_bound_guesses_both_ends_and_abstains_between() -> None:
    included = np.arange(200) % 2 == 0
    scores = np.zeros(200)
    scores[:10] = np.where(included[:10], 1, -1)  # ten are certain, of the rest nothing is known
    scores[10:] = np.random.default_rng(0).uniform(-0.5, 0.5, 190)
    found = best_bound(scores, included, confidence=0.95, delta=0)
    assert found.guesses in guess_counts(200)
    perfect = best_bound(included.astype(float), included, confidence=0.95, delta=0)
    assert (perfect.guesses, perfect.correct) == (200, 200)
    assert perfect.epsilon == perfect.refutable == refutable(200, confidence=0.95, delta=0)
    a_third = 1 - 0.05 / len(guess_counts(200))
    assert perfect.epsilon == lower_bound(200, 200, confidence=a_third, delta=0, canaries=200)
    assert best_bound(-included.astype(float), included, confidence=0.95, delta=0).epsilon == 0


def test_guess_counts_are_even_and_depend_on_the_canaries_alone() -> None:
    assert guess_counts(1000) == (100, 332, 1000)
    assert guess_counts(2) == (2,)
    for canaries in range(2, 300):
        counts = guess_counts(canaries)
        assert all(count % 2 == 0 and 2 <= count <= canaries for count in counts)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_canaries_needed_are_enough_and_hardly_more(epsilon: float) -> None:
    needed = canaries_needed(epsilon, confidence=0.95, delta=1e-5)
    assert needed is not None
    assert refutable(needed, confidence=0.95, delta=1e-5) > epsilon
    assert refutable(max(2, int(0.9 * needed) - 3), confidence=0.95, delta=1e-5) <= epsilon


def test_where_delta_is_large_no_number_of_canaries_is_enough() -> None:
    assert canaries_needed(8.0, confidence=0.95, delta=1e-3) is None


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta"), [(10, 11, 5, 0), (10, 5, 6, 0), (10, 5, -1, 0), (9, 9, 9, 1)]
)
def test_impossible_counts_are_refused(canaries: int, guesses: int, correct: int, delta: float) -> None:
    with pytest.raises(ValueError, match=r"guesses|delta"):
        p_value(1.0, delta, canaries, guesses, correct)


def test_scores_must_be_finite_and_match_the_coins() -> None:
    with pytest.raises(ValueError, match="finite"):
        best_bound(np.array([0, np.nan]), np.array([True, False]), confidence=0.95, delta=0)
    with pytest.raises(ValueError, match="length"):
        best_bound(np.zeros(3), np.array([True, False]), confidence=0.95, delta=0)
