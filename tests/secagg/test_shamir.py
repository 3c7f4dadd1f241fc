"""Shamir's shares: any threshold of them rebuilds the secret; fewer say nothing, by counting all cases."""

import itertools
from collections import Counter

import numpy as np
import pytest

from fl_ppae.secagg.shamir import _PRODUCT, join, split


def slow_product(one: int, other: int) -> int:
    """The oracle: multiplication of polynomials, then the remainder by x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for bit in range(8):
        if other >> bit & 1:
            product ^= one << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def test_the_table_is_multiplication_in_the_field_of_aes() -> None:
    """FIPS 197, section 4.2: {57} times {83} is {c1}."""
    assert _PRODUCT[0x57, 0x83] == 0xC1
    for one, other in itertools.product(range(0, 256, 5), range(256)):
        assert _PRODUCT[one, other] == slow_product(one, other)


def drawn_from(seed: int):
    return np.random.default_rng(seed).bytes


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (2, 2), (5, 3), (7, 6), (8, 2)])
@pytest.mark.parametrize("size", [0, 1, 33])
def test_any_threshold_of_shares_rebuilds_the_secret_and_fewer_do_not(
    shares: int, threshold: int, size: int
) -> None:
    secret = drawn_from(1)(size)
    dealt = dict(enumerate(split(secret, shares, threshold, drawn_from(2)), start=1))
    assert {len(share) for share in dealt.values()} == {size}
    for count in range(1, shares + 1):
        for chosen in itertools.combinations(dealt, count):
            rebuilt = join({position: dealt[position] for position in chosen})
            assert (rebuilt == secret) == (count >= threshold or size == 0) or size == 1


@pytest.mark.parametrize(("shares", "threshold"), [(100, 51), (255, 129), (255, 255)])
def test_many_shares(shares: int, threshold: int) -> None:
    secret = drawn_from(1)(64)
    dealt = dict(enumerate(split(secret, shares, threshold, drawn_from(2)), start=1))
    chosen = np.random.default_rng(3).choice(np.arange(1, shares + 1), threshold, replace=False)
    assert join({int(position): dealt[int(position)] for position in chosen}) == secret
    assert join({int(position): dealt[int(position)] for position in chosen[1:]}) != secret


@pytest.mark.parametrize("secret", [0, 1, 200])
def test_one_share_of_threshold_two_takes_every_value_equally_often(secret: int) -> None:
    dealt = [split(bytes([secret]), 3, 2, lambda _, byte=byte: bytes([byte])) for byte in range(256)]
    for position in range(3):
        assert Counter(share[position] for share in dealt) == {bytes([value]): 1 for value in range(256)}


@pytest.mark.parametrize("secret", [0, 200])
def test_two_shares_of_threshold_three_take_every_pair_of_values_equally_often(secret: int) -> None:
    """All 65,536 draws at once: each is one byte of a long secret."""
    drawn = np.indices((256, 256)).astype(np.uint8).tobytes()
    dealt = split(bytes([secret]) * 65_536, 3, 3, lambda _: drawn)
    first, second, third = (np.frombuffer(share, np.uint8).astype(int) for share in dealt)
    for one, other in ((first, second), (second, third), (first, third)):
        assert (np.bincount(256 * one + other) == 1).all()
    # The control: two shares fix the third, for one secret.
    assert len(np.unique(65_536 * first + 256 * second + third)) == 65_536


def test_shares_of_a_narrower_draw_are_not_uniform() -> None:
    """The control: uniformity needs uniform coefficients."""
    dealt = [split(b"\0", 3, 2, lambda _, byte=byte: bytes([byte % 16])) for byte in range(256)]
    assert len({share[0] for share in dealt}) == 16


@pytest.mark.parametrize(("shares", "threshold"), [(2, 3), (3, 0), (256, 2), (0, 0)])
def test_a_threshold_that_does_not_fit_is_an_error(shares: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="must be 1 <= threshold <= shares <= 255"):
        split(b"secret", shares, threshold, drawn_from(0))


@pytest.mark.parametrize("shares", [{}, {1: b"ab", 2: b"a"}])
def test_shares_of_several_lengths_or_none_are_an_error(shares: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="shares of one secret have the same length"):
        join(shares)
