"""Class shares from updates: told where updates tell them, the mean where they don't."""

from __future__ import annotations

import numpy as np
import pytest

from fl_ppae.leakage.class_mix import draw_mix, fit_and_predict, random_mixes, to_simplex, total_variation


@pytest.mark.parametrize("classes", [2, 8])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_no_class_shares_are_nearer_than_the_projection(classes: int, spread: float):
    rng = np.random.default_rng(0)
    rows = rng.normal(1 / classes, spread, (20, classes))
    shares = to_simplex(rows)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares.min() >= 0
    np.testing.assert_allclose(to_simplex(shares), shares, atol=1e-12)
    own = ((rows - shares) ** 2).sum(1)
    for other in rng.dirichlet(np.full(classes, 0.3), 500):
        nearer = shares + 0.01 * (other - shares)  # a step within the simplex
        assert (((rows - nearer) ** 2).sum(1) >= own - 1e-12).all()


@pytest.mark.parametrize("mix", [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
def test_records_are_drawn_by_the_mix(mix: list[float]):
    labels = np.repeat([0, 1, 2], [100, 10, 50])
    rows = draw_mix(labels, np.array(mix), 5000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(labels[rows], minlength=3) / 5000, mix, atol=0.03)


def test_a_class_that_is_not_there_is_not_drawn():
    rows = draw_mix(np.array([0, 1, 1]), np.array([0.2, 0.2, 0.6]), 100, np.random.default_rng(0))
    assert len(rows) == 100


USUAL = np.array([0.5, 0.2, 0.1, 0.1, 0.1])


def guessed(mixes: np.ndarray, truth: np.ndarray, noise: float) -> np.ndarray:
    """The guesses for hospitals with the mixes `truth`, whose updates show their mix behind this noise."""
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(5, 400))
    known, seen = (shares @ effect + noise * rng.normal(size=(len(shares), 400)) for shares in (mixes, truth))
    guesses = fit_and_predict(known, mixes, seen, USUAL)
    np.testing.assert_allclose(guesses.sum(1), 1)
    return guesses


def test_mixes_are_told_from_updates_that_show_them_and_not_from_noise():
    mixes, truth = random_mixes(60, USUAL, seed=1), random_mixes(12, USUAL, seed=2)
    usual = total_variation(np.tile(USUAL, (12, 1)), truth).mean()
    assert total_variation(guessed(mixes, truth, 0.1), truth).mean() < 0.05 < usual - 0.2
    assert total_variation(guessed(mixes, truth, 1000.0), truth).mean() <= usual + 0.01


@pytest.mark.parametrize("noise", [0.1, 3.0, 10.0, 1000.0])
def test_hospitals_with_the_usual_mix_are_guessed_no_worse_than_blindly(noise: float):
    rng = np.random.default_rng(3)
    truth = rng.multinomial(400, USUAL, size=12) / 400
    blind = total_variation(np.tile(USUAL, (12, 1)), truth).mean()
    found = guessed(random_mixes(60, USUAL, seed=1), truth, noise)
    assert total_variation(found, truth).mean() <= blind + 0.01


def test_random_mixes_lie_about_the_usual_one():
    np.testing.assert_allclose(random_mixes(4000, USUAL, seed=0).mean(0), USUAL, atol=0.02)
    assert random_mixes(8, np.array([1.0, 0.0]), seed=0).min() >= 0  # a class that the server lacks
