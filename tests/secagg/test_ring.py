"""The ring: exact sums, a rounding error that is bounded and reached, and a range that is checked."""

import numpy as np
import pytest

from fl_ppae.errors import UserError
from fl_ppae.secagg.ring import HALF, check_range, decode, encode, encode_integers


@pytest.mark.parametrize("step", [2.0**-24, 1e-3, 1.0, 7.0])
def test_multiples_of_the_step_come_back_exactly(step: float) -> None:
    integers = np.array([0, 1, -1, HALF - 1, -HALF, 12_345])
    assert np.array_equal(decode(encode(integers * step, step), step), integers * step)
    assert np.array_equal(encode(integers * step, step), encode_integers(integers))


@pytest.mark.parametrize("hospitals", [1, 2, 10, 100])
def test_a_sum_is_off_by_at_most_half_a_step_for_each_hospital(hospitals: int) -> None:
    step = 2.0**-20
    values = np.random.default_rng(hospitals).uniform(-5, 5, (hospitals, 1000))
    total = decode(sum(encode(one, step) for one in values), step)
    error = np.abs(total - values.sum(axis=0)).max() / step
    assert error <= hospitals / 2 + 1e-6
    halves = np.full((hospitals, 1), 0.5 * step)
    halved = decode(sum(encode(one, 3 * step) for one in halves), 3 * step)
    assert halved == 0  # a sixth of a step each is lost
    assert error > 0.1  # the control: there is an error


def test_a_sum_wraps_around_below_and_above() -> None:
    assert encode_integers(np.array([HALF, -HALF - 1, 2**32, -(2**32) - 5])).tolist() == [
        HALF,
        HALF - 1,
        0,
        2**32 - 5,
    ]
    assert decode(encode_integers(np.array([HALF])), 1.0) == -HALF


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**60])
def test_a_value_that_has_no_multiple_is_an_error(value: float) -> None:
    with pytest.raises(UserError, match="clip it to its range first"):
        encode(np.array([0.0, value]), 1.0)


def test_a_range_that_could_wrap_around_is_an_error() -> None:
    check_range(HALF - 1, 1.0)
    with pytest.raises(UserError, match="sums up to 4096 in steps of 1e-06 don't fit 32 bits") as error:
        check_range(4096, 1e-6)
    assert "the step must be above 1.90735e-06" in str(error.value)
    with pytest.raises(UserError, match="don't fit"):
        check_range(HALF, 1.0)
    with pytest.raises(UserError, match="don't fit"):
        check_range(float("nan"), 1.0)
