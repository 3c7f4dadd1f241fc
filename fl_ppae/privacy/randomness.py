"""The source of noise and sampling: one stream per (seed, hospital, draw, purpose), or OS entropy.

torch's CPU generator keeps only the low 32 bits of its seed, so its whole stream can be found by trying
2**32 seeds. Noise is therefore drawn from numpy's PCG64, seeded with at least 128 bits. PCG64 is not a
cryptographic generator either; docs/privacy.md explains the consequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FROM_ENTROPY = -1


@dataclass(frozen=True)
class Streams:
    """Independent generators for one draw of a hospital: a round, or the release of a part's encodings."""

    sampling: np.random.Generator
    noise: np.random.Generator


def streams(seed: int, hospital: int, draw: int) -> Streams:
    """Generators for one draw of a hospital; `seed = -1` starts from the operating system's entropy.

    With a seed, the key is (seed, hospital, draw), where `draw` is the number of events that the hospital
    has paid for. It is not the order of calls, so a run repeats in any process, and not the requested
    round, so no stream is used twice. Different keys give independent streams (numpy's
    SeedSequence).
    """
    if seed == FROM_ENTROPY:
        root = np.random.SeedSequence()
    else:
        root = np.random.SeedSequence(entropy=seed, spawn_key=(hospital, draw))
    sampling, noise = root.spawn(2)
    return Streams(np.random.default_rng(sampling), np.random.default_rng(noise))


def poisson_batch(rng: np.random.Generator, records: int, sample_rate: float) -> np.ndarray:
    """Positions of one Poisson-sampled batch: each record joins at `sample_rate`; may be empty."""
    return np.flatnonzero(rng.random(records) < sample_rate)
