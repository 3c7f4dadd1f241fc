from dataclasses import replace

import numpy as np
import pytest

from fl_ppae.studies.frontier import Choice, Wish, frontier, nearest, pick


def _random_choices(seed: int) -> list[Choice]:
    rng = np.random.default_rng(seed)
    keys = {"autoencoder": "fc", "classifier": "lr", "scope": "autoencoder", "privacy": "8"}
    return [
        Choice(keys, 3, *np.round(rng.random(3), 1).tolist(), rng.choice(["formal", "nominal"]))
        for _ in range(30)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_pick_is_the_most_accurate_of_all_that_fit_and_lies_on_the_frontier(seed: int) -> None:
    everyone, wish = _random_choices(seed), Wish(0.6, 0.6, 0.2, formal_only=False)
    fitting = [one for one in everyone if one.epsilon <= 0.6 and one.ssim <= 0.6 and one.accuracy >= 0.2]
    chosen = pick(frontier(everyone), wish)
    assert chosen is not None and chosen in fitting
    assert chosen.accuracy == max(one.accuracy for one in fitting)


def test_a_nominal_epsilon_is_no_guarantee_however_small() -> None:
    one = replace(_random_choices(0)[0], accuracy=0.9, epsilon=0.1, ssim=0.1, status="nominal")
    formal = replace(one, accuracy=0.5, epsilon=1.0, status="formal")
    assert pick([one, formal], Wish(2.0, 0.5, 0.0, formal_only=True)) == formal
    assert pick([one, formal], Wish(2.0, 0.5, 0.0, formal_only=False)) == one
    assert len(frontier([one, formal])) == 2


def test_where_nothing_fits_the_nearest_says_what_gives_way() -> None:
    base = replace(_random_choices(0)[0], accuracy=0.8, epsilon=8.0, ssim=0.5, status="formal")
    leaky = replace(base, epsilon=1.0, ssim=0.9)
    miss = nearest([base, leaky], Wish(7.0, 0.5, 0.0, formal_only=True))
    assert miss is not None and miss.choice == base
    assert miss.gives_way == ("epsilon 8.00 is above 7",)
