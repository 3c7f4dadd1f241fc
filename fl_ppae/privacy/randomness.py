"""Where noise and sampling come from: one stream per (seed, hospital, draw, purpose), or the OS.

torch's CPU generator keeps only the low 32 bits of its seed, so that its whole stream can be found
by trying 2**32 seeds. Noise is therefore drawn from numpy's PCG64, seeded with 128 bits or more.
PCG64 is not a cryptographic generator either; docs/privacy.md says what that leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FROM_ENTROPY = -1


@dataclass(frozen=True)
class Streams:
    """Independent generators of one draw of a hospital: a round, or the release of a part's encodings."""

    sampling: np.random.Generator
    noise: np.random.Generator


def streams(seed: int, hospital: int, draw: int) -> Streams:
    """Generators for one draw of a hospital; `seed = -1` starts from the operating system's entropy.

    With a seed, the key is (seed, hospital, draw), where `draw` is the number of events that the
    hospital has paid: never the order of calls, so that a run repeats in any process, and never the
    round asked for, so that no stream is used twice. Different keys give independent streams (numpy's
    SeedSequence).
    """
    if seed == FROM_ENTROPY:
        root = np.random.SeedSequence()
    else:
        root = np.random.SeedSequence(entropy=seed, spawn_key=(hospital, draw))
    sampling, noise = root.spawn(2)
    return Streams(np.random.default_rng(sampling), np.random.default_rng(noise))


def poisson_batch(rng: np.random.Generator, records: int, sample_rate: float) -> np.ndarray:
    """Positions of one Poisson-sampled batch: each of `records` joins with `sample_rate`; may be empty."""
    return np.flatnonzero(rng.random(records) < sample_rate)
