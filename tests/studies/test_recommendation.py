from dataclasses import replace

import numpy as np
import pytest
from studies.study_tables import BASELINE, table_of

from fl_ppae.studies.recommendation import Choice, Requirements, nearest, pick, without_training
from fl_ppae.studies.summary import summarise

KEYS = {"autoencoder": "fc", "classifier": "lr", "scope": "autoencoder", "privacy": "8"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("formal_only", [True, False])
def test_the_pick_is_the_most_accurate_that_meets_the_requirements(seed: int, formal_only: bool) -> None:
    rng = np.random.default_rng(seed)
    everyone = [
        Choice(KEYS, 3, *np.round(rng.random(3), 1).tolist(), rng.choice(["formal", "nominal"]))
        for _ in range(30)
    ]
    fitting = [
        one
        for one in everyone
        if one.epsilon <= 0.6
        and one.ssim <= 0.6
        and one.accuracy >= 0.2
        and (one.status == "formal" or not formal_only)
    ]
    chosen = pick(everyone, Requirements(0.6, 0.6, 0.2, formal_only))
    assert chosen is not None and chosen in fitting
    assert chosen.accuracy == max(one.accuracy for one in fitting)


def test_a_nominal_epsilon_is_no_guarantee_however_small() -> None:
    nominal = Choice(KEYS, 3, accuracy=0.9, epsilon=0.1, ssim=0.1, status="nominal")
    formal = replace(nominal, accuracy=0.5, epsilon=1.0, status="formal")
    assert pick([nominal, formal], Requirements(2.0, 0.5, 0.0, formal_only=True)) == formal
    assert pick([nominal, formal], Requirements(2.0, 0.5, 0.0, formal_only=False)) == nominal
    as_accurate = replace(formal, accuracy=0.9)
    assert pick([nominal, as_accurate], Requirements(2.0, 0.5, 0.0, formal_only=False)) == as_accurate


def test_where_nothing_fits_the_nearest_says_what_violations() -> None:
    base = Choice(KEYS, 3, accuracy=0.8, epsilon=8.0, ssim=0.5, status="formal")
    leaky = replace(base, epsilon=1.0, ssim=0.9)
    miss = nearest([base, leaky], Requirements(7.0, 0.5, 0.0, formal_only=True))
    assert miss is not None and miss.choice == base
    assert miss.violations == ("epsilon 8.00 is above 7",)


def test_raw_pixels_and_baselines_without_an_attack_are_not_offered() -> None:
    pixels = {**BASELINE, "encoding": "pixels", "accuracy": 0.99}
    unattacked = {**BASELINE, "encoding": "scatternet", "accuracy": 0.98, "inversion_ssim": None}
    leaking = {**BASELINE, "encoding": "random", "accuracy": 0.97, "inversion_ssim": 0.9}
    found = without_training(summarise(table_of([{}, pixels, unattacked, leaking, BASELINE])), 0.6)
    assert found is not None and found.keys["encoding"] == "pca"
