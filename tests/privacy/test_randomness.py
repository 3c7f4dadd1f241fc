"""Streams: ChaCha20 itself, one stream per key, and what is drawn from it."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from fl_ppae.privacy.randomness import Stream, poisson_batch, seeded_stream, streams


def test_the_stream_is_chacha20() -> None:
    """RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, blocks 0 and 1."""
    expected = (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    assert Stream(bytes(32)).words(16).tobytes().hex() == expected


@pytest.mark.parametrize("sizes", [[1] * 40, [7, 33], [0, 40], [40]])
def test_pieces_of_a_stream_are_one_stream(sizes: list[int]) -> None:
    stream = seeded_stream(3)
    pieces = np.concatenate([stream.words(size) for size in sizes])
    assert np.array_equal(pieces, seeded_stream(3).words(40))


def test_more_words_than_are_encrypted_at_once_are_distinct() -> None:
    words = seeded_stream(0).words(300_000)
    assert len(np.unique(words)) == len(words)
    assert np.array_equal(words[:10], seeded_stream(0).words(10))
    assert kstest(words / 2.0**64, "uniform").pvalue > 1e-3


def drawn(seed: int, hospital: int, draw: int) -> list[np.ndarray]:
    found = streams(seed, hospital, draw)
    return [found.sampling.words(5000), found.noise.words(5000)]


def test_the_same_key_gives_the_same_streams() -> None:
    for one, other in zip(drawn(42, 1, 3), drawn(42, 1, 3), strict=True):
        assert np.array_equal(one, other)


def test_another_seed_hospital_draw_or_purpose_gives_an_independent_stream() -> None:
    keys = [(42, 0, 1), (42, 1, 0), (42, 1, 1), (42, 0, 2), (43, 0, 1), (4, 20, 1), (2**31 - 1, 0, 1)]
    every = [stream for key in keys for stream in drawn(*key)]
    for one, other in itertools.combinations(every, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.07
    assert len({int(stream[0]) for stream in every}) == 2 * len(keys)


def test_without_a_seed_every_stream_is_new() -> None:
    first = [int(stream[0]) for _ in range(3) for stream in drawn(-1, 0, 1)]
    assert len(set(first)) == 6


def test_poisson_batches_join_each_record_at_the_accounted_rate_and_independently() -> None:
    records, rate, batches = 200, 0.15, 4000
    stream = streams(42, 0, 1).sampling
    joined = np.zeros((batches, records), dtype=bool)
    for row in joined:
        row[poisson_batch(stream, records, rate)] = True
    error = math.sqrt(rate * (1 - rate) / batches)
    assert np.abs(joined.mean(axis=0) - rate).max() < 5 * error
    sizes = joined.sum(axis=1)
    assert sizes.var() == pytest.approx(records * rate * (1 - rate), rel=0.1), "not a fixed batch size"


@pytest.mark.parametrize(("rate", "size"), [(1.0, 50), (1e-12, 0), (0.0, 0)])
def test_poisson_batches_at_the_ends_of_the_range(rate: float, size: int) -> None:
    assert len(poisson_batch(seeded_stream(0), 50, rate)) == size


def test_integers_are_uniform() -> None:
    counts = np.bincount(seeded_stream(1).integers(40_000, 9), minlength=9)
    assert len(counts) == 9
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_permutation_holds_every_position_once(count: int) -> None:
    assert np.array_equal(np.sort(seeded_stream(2).permutation(count)), np.arange(count))


def test_every_order_is_equally_likely() -> None:
    stream = seeded_stream(5)
    orders = [tuple(stream.permutation(4).tolist()) for _ in range(4800)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert chisquare(counts).pvalue > 1e-3
