"""The bound by guesses: never above the truth too often, exact where it is known, and able to refute."""

import math

import numpy as np
import pytest
from epsilon_audit.audited import gaussian_curve, gaussian_guesses
from scipy.stats import binom, norm

from fl_ppae.epsilon_audit.bounds import Guessed, guess, impossible, least_refuted, level_of_one, refutes
from fl_ppae.privacy.trade_offs import curve_through

REPETITIONS = 1000


@pytest.mark.parametrize(("trainings", "canaries"), [(1, 40), (1, 400), (3, 100), (12, 100)])
@pytest.mark.parametrize("mu", [0.3, 1.5])
def test_a_true_claim_is_refuted_at_most_as_often_as_the_confidence_says(
    mu: float, trainings: int, canaries: int
) -> None:
    rng, curve = np.random.default_rng(canaries), gaussian_curve(mu)
    level = level_of_one(trainings, 0.9)
    known: dict[Guessed, bool] = {}

    def one() -> bool:
        runs = [gaussian_guesses(mu, canaries, rng) for _ in range(trainings)]
        for run in runs:
            if run not in known:  # each training by itself, at the level of one of several
                known[run] = refutes([run], curve, 1 - level)
        return sum(known[run] for run in runs) >= trainings - trainings // 10

    refuted = sum(one() for _ in range(REPETITIONS))
    assert refuted <= binom.isf(1e-4, REPETITIONS, 0.1)


@pytest.mark.parametrize(("trainings", "enough"), [(1, 1), (9, 9), (10, 9), (12, 11), (20, 18)])
def test_enough_trainings_exceed_their_level_by_chance_as_often_as_the_confidence_says(
    trainings: int, enough: int
) -> None:
    level = level_of_one(trainings, 0.95)
    assert binom.sf(enough - 1, trainings, level) == pytest.approx(0.05)
    assert binom.sf(enough - 2, trainings, level) > 0.05 or enough == 1


def test_one_unlucky_training_of_ten_does_not_decide_but_two_do() -> None:
    rng = np.random.default_rng(2)
    runs = [gaussian_guesses(3.0, 2000, rng) for _ in range(10)]
    unlucky = gaussian_guesses(0.01, 2000, rng)
    assert refutes([*runs[:9], unlucky], gaussian_curve(1.5), 0.95)
    assert not refutes([*runs[:8], unlucky, unlucky], gaussian_curve(1.5), 0.95)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
def test_guesses_that_fail_all_together_are_not_refuted(level: float) -> None:
    """With probability delta everything is told, else nothing: (0, delta), and no independence helps."""
    curve = curve_through(np.zeros(1), np.array([level]))
    assert not impossible(2000, 2000, 2000, 0.99 * level, curve)
    assert impossible(2000, 2000, 2000, 1.05 * level, curve)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
@pytest.mark.parametrize("level", [1e-4, 1e-3, 0.1])
def test_randomised_response_is_never_refuted_beyond_its_binomial_tail(epsilon: float, level: float) -> None:
    """Exact for pure epsilon (arXiv:2305.08846): guesses are right independently, e^eps / (1 + e^eps)."""
    canaries, curve = 300, curve_through(np.array([epsilon]), np.zeros(1))
    right = next(c for c in range(canaries + 1) if impossible(c, canaries, canaries, level, curve))
    chance = 1 / (1 + math.exp(-epsilon))
    assert binom.sf(right - 1, canaries, chance) <= level
    assert binom.sf(right - 1, canaries, chance) > level / 50


@pytest.mark.parametrize("mu", [0.3, 1.5])
def test_half_the_noise_is_refuted(mu: float) -> None:
    rng = np.random.default_rng(1)
    runs = [gaussian_guesses(2 * mu, 6000, rng) for _ in range(5)]
    assert refutes(runs, gaussian_curve(mu), 0.95)


def test_more_trainings_and_more_canaries_refute_more() -> None:
    """In the means of ten audits of a Gaussian mechanism of mu 1.5, in units of it."""

    def bound(trainings: int, canaries: int) -> float:
        rng = np.random.default_rng(5)
        return float(
            np.mean(
                [
                    1
                    / least_refuted(lambda scale, runs=runs: refutes(runs, gaussian_curve(1.5 / scale), 0.95))
                    for runs in (
                        [gaussian_guesses(1.5, canaries, rng) for _ in range(trainings)] for _ in range(10)
                    )
                ]
            )
        )

    one, several, few = bound(1, 10_000), bound(5, 10_000), bound(5, 500)
    assert one + 0.1 < several < bound(12, 10_000) < 1
    assert few + 0.1 < several


def test_guesses_are_the_extremes_of_the_scores() -> None:
    included = np.arange(100) >= 50
    scores = np.arange(100.0)
    assert guess(scores, included) == Guessed(100, (10, 50, 100), (10, 50, 100))
    assert guess(-scores, included).right == (0, 0, 0)
    scores[[0, 99]] = scores[[99, 0]]
    assert guess(scores, included).right == (8, 48, 98)


@pytest.mark.parametrize("truth", [0.07, 0.5, 0.99, 1.0, 1.7, 60.0])
def test_the_least_refuted_noise_is_found_to_a_step(truth: float) -> None:
    found = least_refuted(lambda scale: scale >= truth)
    assert truth <= found < truth * 2 ** (1 / 64) * (1 + 1e-9)


def test_nothing_refuted_has_no_bound() -> None:
    assert least_refuted(lambda _: False) == math.inf
    assert least_refuted(lambda _: True) == pytest.approx(1 / 16, rel=0.5)


def test_wrong_input_is_refused() -> None:
    curve = gaussian_curve(1.0)
    with pytest.raises(ValueError, match="finite"):
        guess(np.full(20, np.nan), np.ones(20, bool))
    with pytest.raises(ValueError, match="20"):
        guess(np.zeros(19), np.ones(19, bool))
    run = Guessed(20, (2, 10, 20), (2, 10, 20))
    for runs, confidence in (([], 0.95), ([run], 1.0)):
        with pytest.raises(ValueError, match="confidence"):
            refutes(runs, curve, confidence)


def test_perfect_guesses_are_those_made() -> None:
    assert Guessed(100, (10, 50, 100), (9, 44, 80)).perfect() == Guessed(100, (10, 50, 100), (10, 50, 100))


def test_the_curve_matters_not_only_the_accuracy() -> None:
    """The same guesses refute less noise of a mechanism whose few confident guesses are better."""
    rng = np.random.default_rng(3)
    run = [gaussian_guesses(1.0, 4000, rng) for _ in range(3)]
    accuracy = norm.cdf(0.5)
    epsilon = math.log(accuracy / (1 - accuracy))
    pure = curve_through(np.array([0.9 * epsilon]), np.zeros(1))
    assert refutes(run, pure, 0.95)
    assert not refutes(run, gaussian_curve(1.0), 0.95)
