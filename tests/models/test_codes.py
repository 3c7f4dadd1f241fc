"""A code of few bits: what it keeps, how many bits it takes, and that nothing fits beside it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fl_ppae.models.codes import EncodingFormat, capacity_in_words, quantised, straight_through

SHAPES = [(1,), (7,), (16,), (3, 2, 5)]


def encodings(shape: tuple[int, ...], count: int = 20) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.3, 1.3, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_number_becomes_the_centre_of_its_cell(bits: int) -> None:
    found = quantised(encodings((50,)), bits)
    inside = np.clip(encodings((50,)), -1, 1)
    assert np.abs(found - inside).max() <= 2.0**-bits + 1e-6
    assert len(np.unique(quantised(np.linspace(-2, 2, 5000, dtype=np.float32), bits))) == 2**bits
    np.testing.assert_array_equal(quantised(found, bits), found)
    np.testing.assert_array_equal(quantised(-found, bits), -found)


@pytest.mark.parametrize(("shape", "bits"), itertools.product(SHAPES, range(9)))
def test_what_is_unpacked_is_what_was_quantised(shape: tuple[int, ...], bits: int) -> None:
    form = EncodingFormat(shape, bits)
    sent = form.packed(encodings(shape))
    assert sent.shape == (20, *form.sent_shape)
    assert sent.dtype == form.sent_type
    np.testing.assert_array_equal(form.unpacked(sent), quantised(encodings(shape), bits))
    assert form.unpacked(form.packed(np.empty((0, *shape), np.float32))).shape == (0, *shape)


@pytest.mark.parametrize(("numbers", "bits", "size"), [(16, 1, 2), (8, 4, 4), (7, 3, 3), (5, 8, 5)])
def test_an_encoding_takes_no_more_bytes_than_its_bits_need(numbers: int, bits: int, size: int) -> None:
    form = EncodingFormat((numbers,), bits)
    assert form.capacity == numbers * bits
    assert form.packed(encodings((numbers,))).nbytes == 20 * size


def test_a_bit_after_the_last_number_is_refused() -> None:
    form = EncodingFormat((7,), 3)
    sent = form.packed(encodings((7,)))
    for stray in (1, 2, 4):
        altered = sent.copy()
        altered[3, -1] |= stray
        with pytest.raises(ValueError, match="21 bits"):
            form.unpacked(altered)


def test_gradients_pass_through_the_grid_as_through_the_identity() -> None:
    codes = torch.from_numpy(encodings((6,))).requires_grad_()
    rounded = straight_through(codes, 2)
    np.testing.assert_allclose(rounded.detach(), quantised(encodings((6,)), 2), atol=1e-6)
    rounded.sum().backward()
    assert torch.equal(codes.grad, torch.ones_like(codes))


def test_the_promise_names_its_number_of_bits_and_floats_promise_nothing() -> None:
    assert "k = 12 numbers x 2 bits = 24 bits: one upload" in capacity_in_words(EncodingFormat((12,), 2))
    assert capacity_in_words(EncodingFormat((12,))) == ""
