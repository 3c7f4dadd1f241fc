"""The Gaussian mechanism on encodings: what is clipped, what noise is added, what stays public."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from fl_ppae.errors import UserError
from fl_ppae.privacy.encodings import Projection, noised, project_and_clip, public_projection
from fl_ppae.privacy.randomness import seeded_stream

SHAPES = [(784,), (16, 7, 7), (3, 28, 28), (5,)]


def projection_of(numbers: int, size: int, clip_norm: float, seed: int = 0) -> Projection:
    rng = np.random.default_rng(seed)
    centre, components = rng.normal(size=numbers), rng.normal(size=(size, numbers))
    return Projection(centre.astype(np.float32), components.astype(np.float32), clip_norm)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("records", [0, 1, 33])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e30])
@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 1e3])
def test_no_encoding_is_longer_than_the_clipping_norm(
    shape: tuple[int, ...], records: int, scale: float, clip_norm: float
) -> None:
    projection = projection_of(int(np.prod(shape)), 4, clip_norm)
    encodings = scale * np.random.default_rng(1).normal(size=(records, *shape)).astype(np.float32)
    rows = project_and_clip(encodings, projection)
    assert rows.shape == (records, 4)
    assert (np.linalg.norm(rows, axis=1) <= 1).all()
    assert (np.linalg.norm(rows.astype(np.float32), axis=1) <= 1).all(), "rounding carries none over"


def test_replacing_one_record_moves_what_is_noised_by_at_most_two_clipping_norms() -> None:
    rng = np.random.default_rng(3)
    projection = projection_of(20, 8, 0.7)
    encodings = rng.normal(size=(50, 20)).astype(np.float32)
    before = project_and_clip(encodings, projection)
    largest = 0.0
    for replacement in (rng.normal(size=20), 1e6 * projection.components[0], -encodings[0], np.zeros(20)):
        changed = encodings.copy()
        changed[0] = replacement
        after = project_and_clip(changed, projection)
        assert np.array_equal(before[1:], after[1:]), "the others stay as they were"
        largest = max(largest, float(np.linalg.norm(before - after)))
    assert 1 < largest <= 2


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_an_encoding_that_is_not_finite_is_released_as_zeros_and_harms_no_other(wrong: float) -> None:
    encodings = np.ones((3, 20), np.float32)
    encodings[1] = wrong
    rows = project_and_clip(encodings, projection_of(20, 8, 1.0))
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows[0], rows[2], rtol=1e-12)
    assert np.linalg.norm(rows[1]) <= 1


def test_a_short_encoding_is_only_scaled_and_a_long_one_keeps_its_direction() -> None:
    projection = Projection(np.zeros(2, np.float32), np.eye(2, dtype=np.float32), 2.0)
    rows = project_and_clip(np.array([[0.6, 0.8], [30.0, 40.0]], np.float32), projection)
    np.testing.assert_allclose(rows, [[0.3, 0.4], [0.6, 0.8]], rtol=2e-5)


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.2, 40.0])
def test_the_noise_is_normal_independent_and_of_the_stated_deviation(noise_multiplier: float) -> None:
    rows = np.random.default_rng(0).uniform(-0.1, 0.1, (4000, 8))
    drawn = noised(rows, noise_multiplier, seeded_stream(5)) - rows
    assert kstest(drawn.ravel() / noise_multiplier, norm.cdf).pvalue > 1e-3
    correlations = np.corrcoef(drawn.T) - np.eye(8)
    assert np.abs(correlations).max() < 0.07


def test_two_records_with_the_same_encoding_get_different_noise() -> None:
    drawn = noised(np.zeros((100, 10)), 1.0, seeded_stream(0))
    assert np.abs(np.corrcoef(drawn) - np.eye(100)).max() < 0.999


def test_the_projection_is_that_of_the_public_encodings_principal_components() -> None:
    rng = np.random.default_rng(0)
    public = 5 + rng.normal(size=(300, 12)) * np.array([9, 6, 4, *[0.1] * 9])
    found = public_projection(public.astype(np.float32), 3)
    np.testing.assert_allclose(found.centre, public.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(np.abs(found.components[:, :3]), np.eye(3), atol=0.1)
    norms = np.linalg.norm((public - found.centre) @ found.components.T, axis=1)
    assert 0.2 < (norms < found.clip_norm).mean() < 0.3
    again = public_projection(public.astype(np.float32), 3)
    assert np.array_equal(found.components, again.components)


@pytest.mark.parametrize(("records", "numbers", "size"), [(100, 12, 13), (10, 50, 11)])
def test_a_projection_to_more_numbers_than_there_are_is_refused(
    records: int, numbers: int, size: int
) -> None:
    public = np.random.default_rng(0).normal(size=(records, numbers))
    with pytest.raises(UserError, match=f"projection-size = {size} is too large") as told:
        public_projection(public, size)
    assert f"at most {min(records, numbers)}" in str(told.value)


def test_constant_public_encodings_still_give_a_positive_clipping_norm() -> None:
    assert public_projection(np.ones((20, 6)), 2).clip_norm > 0
