"""Matching finds whose encoding it is where something of the image is left, and guesses where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.matching import fit_matcher, linkage_scores, nearest, top1
from fl_ppae.leakage.membership import membership_auc

KNOWN, UNSEEN = slice(300), slice(300, 500)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linkage(left: Tensor, right: Tensor) -> float:
    matcher = fit_matcher(left[KNOWN], right[KNOWN])
    same, different, _ = linkage_scores(matcher, left[UNSEEN], right[UNSEEN])
    return membership_auc(same.numpy(), different.numpy()).value


def found(left: Tensor, right: Tensor) -> float:
    return top1(fit_matcher(left[KNOWN], right[KNOWN]), left[UNSEEN], right[UNSEEN]).mean().item()


@pytest.mark.parametrize("shape", [(8,), (49,), (2, 4, 4)])
def test_encodings_that_repeat_are_found_and_linked(shape: tuple[int, ...]) -> None:
    encodings = drawn(500, *shape, seed=0)
    assert found(encodings, encodings.clone()) == 1
    assert linkage(encodings, encodings.clone()) > 0.999


@pytest.mark.parametrize("shape", [(8,), (49,), (2, 4, 4)])
def test_encodings_that_say_nothing_are_neither_found_nor_linked(shape: tuple[int, ...]) -> None:
    left, right = drawn(500, *shape, seed=0), drawn(500, *shape, seed=1)
    assert found(left, right) < 0.04  # guessing gives 0.005; 8 of 200 have probability 1e-5
    assert abs(linkage(left, right) - 0.5) < 0.15  # five standard deviations


def test_what_stays_the_same_is_found_among_louder_numbers_that_do_not() -> None:
    image, noise = drawn(500, 8, seed=0), [20 * drawn(500, 8, seed=seed) for seed in (1, 2)]
    mixing = drawn(16, 16, seed=3)
    left, right = (torch.cat([image + 0.1 * drawn(500, 8, seed=4), each], 1) @ mixing for each in noise)
    assert fit_matcher(left[KNOWN], right[KNOWN]).name == "canonical correlations"
    assert found(left, right) > 0.8
    assert top1(nearest(right[KNOWN]), left[UNSEEN], right[UNSEEN]).mean() < 0.2


def test_scores_are_the_log_likelihood_ratio_of_gaussian_pairs() -> None:
    from scipy.stats import multivariate_normal

    from fl_ppae.leakage.matching import _likelihood_ratios

    mixed = drawn(100_000, 3, seed=0).double()
    left, right = mixed[:, :2], mixed[:, 1:] + 0.5 * drawn(100_000, 2, seed=1)
    scores = _likelihood_ratios(left, right)[0](left[:5], right[:5]).diagonal().numpy()
    both = np.cov(np.hstack([left, right]).T)
    joint, first, second = (
        multivariate_normal(np.zeros(len(part)), part) for part in (both, both[:2, :2], both[2:, 2:])
    )
    rows = np.hstack([left, right])[:5]
    expected = joint.logpdf(rows) - first.logpdf(rows[:, :2]) - second.logpdf(rows[:, 2:])
    np.testing.assert_allclose(scores - scores[0], expected - expected[0], atol=0.05)


def test_encodings_that_are_all_the_same_share_the_first_place() -> None:
    same = torch.ones(500, 8)
    assert found(same, same) == pytest.approx(1 / 200)
    assert linkage(same, same) == 0.5


def test_too_few_pairs_are_not_measured() -> None:
    with pytest.raises(Unmeasurable, match="8 or more"):
        fit_matcher(torch.zeros(7, 2), torch.zeros(7, 2))
