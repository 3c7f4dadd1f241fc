"""All secret randomness of a hospital: one ChaCha20 keystream per draw and purpose.

Noise, Poisson sampling, permutations, augmentation and randomised response draw from these streams alone,
in a simulation as in a deployment; only the key differs. Deployed, it comes from the operating system. In a
simulation it is derived from the run's seed, so that the run can be repeated.

Guarantees that use a stream hold against adversaries that can't tell ChaCha20 (RFC 8439) from random bits.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

FROM_ENTROPY = -1
_ZEROS = bytes(2**20)  # encrypted in pieces of this size; more would leave the processor's cache
_BLOCK = 64
_NONCE = bytes(16)  # a key is used for one stream only


class Stream:
    """A ChaCha20 keystream, read as uniform random words of 64 bits. No word is returned twice."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 secret bytes that no other stream has."""
        self._cipher = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()

    def words(self, count: int) -> np.ndarray:
        """(count,) uint64, uniform on [0, 2**64)."""
        wanted = 8 * count
        out = bytearray(wanted + _BLOCK)
        view = memoryview(out)
        for start in range(0, wanted, len(_ZEROS)):
            piece = memoryview(_ZEROS)[: wanted - start]
            self._cipher.update_into(piece, view[start : start + len(piece) + _BLOCK])
        return np.frombuffer(out, np.uint64, count)

    def bernoulli(self, count: int, probability: float) -> np.ndarray:
        """(count,) bool, each true with `probability`, in [0, 1], rounded down to a multiple of 2**-64."""
        threshold = math.floor(math.ldexp(probability, 64))
        words = self.words(count)
        return words < np.uint64(threshold) if threshold < 2**64 else np.ones(count, bool)

    def uniform(self, count: int) -> np.ndarray:
        """(count,) float64, uniform on the multiples of 2**-53 in [0, 1)."""
        return (self.words(count) >> np.uint64(11)) * 2.0**-53

    def integers(self, count: int, below: int) -> np.ndarray:
        """(count,) int64, uniform on [0, below), with a bias of at most below / 2**64."""
        return (self.words(count) % np.uint64(below)).astype(np.int64)

    def permutation(self, count: int) -> np.ndarray:
        """(count,) int64: a uniformly random order of 0 ... count - 1, unless two 64-bit words collide."""
        return np.argsort(self.words(count), kind="stable")


@dataclass(frozen=True)
class Streams:
    """Independent streams for one draw of a hospital: a round, or the release of a part's encodings."""

    sampling: Stream
    noise: Stream
    order: Stream
    augmentation: Stream


_PURPOSES = ("sampling", "noise", "order", "augmentation")


def streams(seed: int, hospital: int, draw: int) -> Streams:
    """Streams for one draw of a hospital; `seed = -1` takes their keys from the operating system.

    With a seed, the keys are digests of (seed, hospital, draw, purpose), where `draw` is the number of
    events that the hospital has paid for. It is not the order of calls, so a run repeats in any process, and
    not the requested round, so no stream is used twice.
    """
    if seed == FROM_ENTROPY:
        return Streams(*(Stream(secrets.token_bytes(32)) for _ in _PURPOSES))
    return Streams(*(seeded_stream(seed, hospital, draw, purpose) for purpose in _PURPOSES))


def seeded_stream(*names: int | str) -> Stream:
    """The stream that belongs to `names`; whoever knows them knows the stream."""
    return Stream(hashlib.sha256(repr(("fl-ppae", *names)).encode()).digest())


def poisson_batch(stream: Stream, records: int, sample_rate: float) -> np.ndarray:
    """Positions of one Poisson-sampled batch: each record joins at `sample_rate`; may be empty."""
    return np.flatnonzero(stream.bernoulli(records, sample_rate))
