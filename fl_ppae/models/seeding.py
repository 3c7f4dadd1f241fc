"""Draw weights from a seed, independently of everything else the process draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` on the CPU inside the block; afterwards the global generator is as before."""
    generator = torch.default_generator  # torch.manual_seed would reseed the accelerators as well
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
