"""The cost of replacing a record, for whatever was released, against dp-accounting's own accountant."""

import math

import pytest
from privacy.oracles import DELTA, UPLOAD, replace_one_oracle
from scipy.stats import norm

from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.calibration import calibrate_encoding_noise
from fl_ppae.privacy.events import Event, Gaussian, PoissonGaussian


@pytest.mark.parametrize(
    "events",
    [
        (),
        (PoissonGaussian(1.5, 0.2, 40, 1),),
        UPLOAD,
        UPLOAD[:1],
        UPLOAD[1:],
        (PoissonGaussian(1.5, 0.2, 40, 1), PoissonGaussian(3.0, 0.05, 10, 2), *UPLOAD),
    ],
)
def test_the_total_of_all_releases_is_that_of_an_independent_accountant(events: tuple[Event, ...]) -> None:
    found, expected = replace_one_epsilon(events, DELTA), replace_one_oracle(events)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-9)
    # A loss of randomised response lies on a point of the oracle's grid, and its last digit decides
    # whether it is rounded to that point or to the next.
    a_cell = 1e-4 if UPLOAD[1] in events else 0.0
    assert found >= expected - a_cell - 1e-6


def test_randomised_response_alone_costs_at_most_its_epsilon() -> None:
    assert 1.99 < replace_one_epsilon(UPLOAD[1:], 1e-9) <= 2.0 + 1e-3


def test_replacing_a_record_costs_more_than_adding_one_and_an_upload_adds_to_it() -> None:
    training = (PoissonGaussian(1.5, 0.2, 40, 1),)
    added = epsilon(training, DELTA).spent
    replaced = replace_one_epsilon(training, DELTA)
    assert added < replaced < replace_one_epsilon((*training, *UPLOAD), DELTA)


def test_records_of_the_test_part_pay_for_their_own_release_only() -> None:
    training, test = (PoissonGaussian(1.5, 0.2, 40, 1),), Gaussian(0.6, "test", 3)
    alone = replace_one_epsilon((test,), DELTA)
    assert replace_one_epsilon((*training, test), DELTA) == max(replace_one_epsilon(training, DELTA), alone)


@pytest.mark.parametrize("target", [0.1, 1.0, 8.0, 50.0])
def test_noise_on_encodings_meets_its_budget_by_the_analytic_gaussian_mechanism(target: float) -> None:
    """Balle and Wang 2018, theorem 8, written out again; two encodings are at most 2 clipping norms apart."""
    sigma = calibrate_encoding_noise(target, DELTA)

    def delta(noise: float) -> float:
        far, near = 2 / (2 * noise) - target * noise / 2, -2 / (2 * noise) - target * noise / 2
        return float(norm.cdf(far) - math.exp(target) * norm.cdf(near))

    assert delta(sigma) <= DELTA
    assert delta(0.995 * sigma) > DELTA, "more noise than is needed"
    assert float(f"{sigma:.3e}") == sigma
    assert replace_one_epsilon([Gaussian(sigma, "train", 1)], DELTA) <= target
