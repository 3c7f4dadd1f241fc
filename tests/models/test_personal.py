import numpy as np
import pytest

from fl_ppae.models.personal import COMMON_ALONE, Mixture, fitted_mixture

CLASSES = 5


def answers(labels: np.ndarray, right: float, seed: int) -> np.ndarray:
    """Class probabilities (N, K) of a model that is right so often, and sure of it as often."""
    rng = np.random.default_rng(seed)
    chosen = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, CLASSES, len(labels)))
    likely = np.full((len(labels), CLASSES), (1 - right) / CLASSES)
    likely[np.arange(len(labels)), chosen] += right
    return likely


def accuracy(likely: np.ndarray, labels: np.ndarray) -> float:
    return float((likely.argmax(1) == labels).mean())


def test_two_models_that_err_apart_answer_better_together() -> None:
    labels = np.random.default_rng(0).integers(0, CLASSES, 4000)
    third, common, own = (answers(labels, right, seed) for right, seed in ((0.8, 1), (0.8, 2), (0.7, 3)))
    mixture = fitted_mixture(common[:2000], own[:2000], labels[:2000])
    assert mixture.common > mixture.own > 0
    both = mixture.log_probabilities(common, own)[2000:]
    np.testing.assert_allclose(np.exp(both).sum(1), 1)
    loss = -both[np.arange(2000), labels[2000:]].mean()
    assert loss < -np.log(third[np.arange(2000, 4000), labels[2000:]]).mean()
    assert accuracy(both, labels[2000:]) >= accuracy(common[2000:], labels[2000:])


def test_a_useless_network_gets_no_weight() -> None:
    labels = np.random.default_rng(0).integers(0, CLASSES, 1000)
    mixture = fitted_mixture(answers(labels, 0.9, 1), answers(labels, 0.0, 2), labels)
    assert mixture.own == pytest.approx(0, abs=0.1)
    assert fitted_mixture(answers(labels, 0.0, 2), answers(labels, 0.9, 1), labels).own > 0.5


def test_without_held_out_records_the_common_model_answers() -> None:
    nothing = np.empty((0, CLASSES))
    assert fitted_mixture(nothing, nothing, np.empty(0, np.int64)) == COMMON_ALONE
    likely = answers(np.array([0, 3]), 0.9, 1)
    assert COMMON_ALONE.log_probabilities(likely, 1 - likely).argmax(1).tolist() == likely.argmax(1).tolist()


def test_one_wrong_certainty_does_not_outvote_the_other_model() -> None:
    sure, other = np.eye(CLASSES)[:1], np.full((1, CLASSES), 0.2)
    assert np.isfinite(Mixture(1.0, 1.0).log_probabilities(sure, other)).all()
