"""The epsilon of a group against an own composition by FFT, closed forms, and that of one record."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.events import Declared, Event, Gaussian, PoissonGaussian, RandomisedResponse, Unprotected
from fl_ppae.privacy.groups import MAX_COPIES, Holding, group_epsilon, group_replace_epsilon

DELTA = 1e-5
STEPS = [(0.7, 0.02, 30), (2.5, 0.3, 60), (4.0, 1.0, 8)]


def training(sigma: float, rate: float, steps: int) -> tuple[Event, ...]:
    return (PoissonGaussian(sigma, rate, steps, 1),)


def by_fft(sigma: float, rate: float, steps: int, copies: int, signs: tuple[int, int]) -> float:
    """Epsilon of `steps` outcomes of one mixture against another: losses on a grid, convolved by FFT.

    Outcomes are midpoints of a fine grid, and losses go to the nearest point: no bound, but close.
    """
    joined = np.arange(copies + 1)
    edges = np.linspace(-copies - 12 * sigma, copies + 12 * sigma, 200_001)
    middle = (edges[1:] + edges[:-1]) / 2
    above, below = (
        sum(
            weight * norm.pdf(middle, sign * j, sigma)
            for j, weight in zip(joined, binom.pmf(joined, copies, rate), strict=True)
        )
        for sign in signs
    )
    mass = above * np.diff(edges)
    losses = np.log(above) - np.log(below)
    size, width = 2**19, 5e-4
    cells = np.rint(losses / width).astype(int)
    one = np.bincount(cells % size, weights=mass, minlength=size)
    together = np.fft.irfft(np.fft.rfft(one) ** steps, size)
    values = np.fft.fftfreq(size, 1 / size) * width

    def excess(bound: float) -> float:
        over = values > bound
        return float((together[over] * -np.expm1(bound - values[over])).sum()) - DELTA

    return brentq(excess, 0, size * width / 2 - 1)


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize(("sigma", "rate", "steps"), STEPS)
def test_a_groups_epsilon_is_that_of_an_own_composition(
    sigma: float, rate: float, steps: int, copies: int
) -> None:
    held = [Holding(training(sigma, rate, steps), copies)]
    removed, added, replaced = (
        by_fft(sigma, rate, steps, copies, signs) for signs in ((1, 0), (0, -1), (1, -1))
    )
    for found, expected in (
        (group_epsilon(held, DELTA), max(removed, added)),
        (group_replace_epsilon(held, DELTA), replaced),
    ):
        assert expected - 0.002 <= found <= expected + max(0.02, 0.005 * expected)


@pytest.mark.parametrize(("sigma", "rate", "steps"), STEPS)
def test_a_group_of_one_is_one_record_and_more_copies_cost_more(
    sigma: float, rate: float, steps: int
) -> None:
    events = training(sigma, rate, steps)
    alone = [epsilon(events, DELTA).pld, replace_one_epsilon(events, DELTA)]
    groups = [
        [cost([Holding(events, copies)], DELTA) for cost in (group_epsilon, group_replace_epsilon)]
        for copies in (1, 2, 3)
    ]
    assert groups[0] == pytest.approx(alone, rel=2e-3)
    assert all(more > 1.5 * less for less, more in zip(alone, groups[1], strict=True)), "control: not alone"
    assert all(more > less for less, more in zip(groups[1], groups[2], strict=True))


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize(("sigma", "rate", "steps"), [(2.0, 0.02, 20), (6.0, 0.2, 10)])
def test_a_groups_epsilon_is_never_above_the_general_bound_for_groups(
    sigma: float, rate: float, steps: int, copies: int
) -> None:
    """(epsilon, delta) for one record is (k epsilon, delta (e^(k epsilon) - 1) / (e^epsilon - 1)) for k."""
    events = training(sigma, rate, steps)
    for cost, alone in (
        (group_epsilon, lambda delta: epsilon(events, delta).pld),
        (group_replace_epsilon, lambda delta: replace_one_epsilon(events, delta)),
    ):
        one = alone(1e-7)
        delta = 1e-7 * math.expm1(copies * one) / math.expm1(one)
        assert alone(delta) < cost([Holding(events, copies)], delta) <= copies * one


def test_without_sampling_copies_are_one_gaussian_of_their_sensitivity() -> None:
    sigma, steps, copies = 8.0, 40, 3
    shift = copies * math.sqrt(steps) / sigma

    def excess(bound: float) -> float:
        """Of the analytic Gaussian mechanism (arXiv:1805.06530)."""
        tails = norm.cdf(shift / 2 - bound / shift), norm.cdf(-shift / 2 - bound / shift)
        return tails[0] - math.exp(bound) * tails[1] - DELTA

    found = group_epsilon([Holding(training(sigma, 1.0, steps), copies)], DELTA)
    assert found == pytest.approx(brentq(excess, 0, 100), abs=0.02)


def test_a_record_of_two_hospitals_pays_both_together() -> None:
    one, other = training(1.2, 0.1, 40), training(2.0, 0.4, 30)
    held = [Holding(one, 1), Holding(other, 1)]
    both = (*one, *other)
    assert group_epsilon(held, DELTA) == pytest.approx(epsilon(both, DELTA).pld, rel=2e-3)
    assert group_replace_epsilon(held, DELTA) == pytest.approx(replace_one_epsilon(both, DELTA), rel=2e-3)
    largest = max(epsilon(events, DELTA).pld for events in (one, other))
    assert group_epsilon(held, DELTA) > largest + 0.5, "control: not the largest alone"


def test_each_copys_encoding_and_label_is_a_release_of_its_own() -> None:
    encoding, tested = Gaussian(6.0, "train", 1), Gaussian(6.0, "test", 1)
    label = RandomisedResponse(0.5, 8, 1)
    found = group_replace_epsilon([Holding((encoding, tested, label), 3)], DELTA)
    assert found == pytest.approx(replace_one_epsilon([encoding, label] * 3, DELTA), abs=0.01)
    # A copy in the test part pays for its own encoding, too.
    shared = group_replace_epsilon([Holding((encoding, tested, label), 1, 2)], DELTA)
    assert shared == pytest.approx(replace_one_epsilon([encoding] * 3 + [label], DELTA), abs=0.01)
    assert group_replace_epsilon([Holding((encoding, label), 0, 2)], DELTA) == 0


@pytest.mark.parametrize("part", ["train", "test"])
def test_what_left_without_a_guarantee_makes_a_group_infinite_if_it_has_a_copy_there(part: str) -> None:
    events = (*training(1.0, 0.1, 5), Unprotected("encodings", "autoencoder", part, "run", 1))
    counts = {"train": (2, 0), "test": (0, 2)}
    assert group_replace_epsilon([Holding(events, *counts[part])], DELTA) == math.inf
    other = counts["test" if part == "train" else "train"]
    assert group_replace_epsilon([Holding(events, *other)], DELTA) < math.inf
    assert group_epsilon([Holding(events, 2)], DELTA) < math.inf, "updates have a guarantee of their own"
    nominal = (*events, Unprotected("updates", "encoder", "train", "run", 1))
    assert group_epsilon([Holding(nominal, 2)], DELTA) == math.inf


def test_a_declared_loss_has_no_number_for_a_group() -> None:
    events = (*training(1.0, 0.1, 5), Declared(1.0, 1e-9))
    for cost in (group_epsilon, group_replace_epsilon):
        assert cost([Holding(events, 2)], DELTA) == math.inf
        assert cost([Holding(events, 0)], DELTA) == 0, "control: no copy is there"


def test_nothing_released_costs_nothing_and_too_many_copies_have_no_number() -> None:
    events = training(1.0, 0.1, 5)
    for cost in (group_epsilon, group_replace_epsilon):
        assert cost([], DELTA) == cost([Holding((), 2)], DELTA) == cost([Holding(events, 0)], DELTA) == 0
        assert cost([Holding(events, MAX_COPIES)], DELTA) < math.inf
        assert cost([Holding(events, MAX_COPIES + 1)], DELTA) == math.inf
