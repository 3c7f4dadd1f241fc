"""What a server unmasks in a round of joint noise: the sum of the parts of `honest` hospitals, in the ring.

The audited hospital's part comes from its own training. At an audit's weights no record has a gradient, so
the part of each other hospital is its share of the noise alone. It is drawn and encoded by the functions that
hospitals use. A server that colludes with the remaining hospitals subtracts theirs, so the sum has no more.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
import torch

from fl_ppae.masked_updates import noise_grid, vector_of
from fl_ppae.privacy.events import JointGaussian
from fl_ppae.privacy.noise import add_noise
from fl_ppae.privacy.plan import HospitalPlan
from fl_ppae.privacy.randomness import FROM_ENTROPY, Stream, seeded_stream
from fl_ppae.privacy.terms import Terms
from fl_ppae.secagg.ring import decode

ALL_BUT_ONE = "one of two hospitals without noise"


@dataclass(frozen=True)
class JointSum:
    """The claim about a joint sum, and what makes it up.

    Attributes:
        plan: of the audited hospital in the joint run.
        terms: what it agrees to there.
    """

    plan: HospitalPlan
    terms: Terms

    @property
    def events(self) -> tuple[JointGaussian, ...]:
        """What the hospital's ledger holds after each round of the plan."""
        events = (self.terms.event(number) for number in range(1, self.plan.rounds + 1))
        return tuple(event for event in events if isinstance(event, JointGaussian))

    def seen(self, own: np.ndarray, streams: list[Stream]) -> np.ndarray:
        """The sum (d,) of the audited hospital's noised `own` (d,) and of the shares drawn from `streams`."""
        step, multiplier = noise_grid(self.terms), self.terms.own_noise_multiplier
        assert step is not None and multiplier is not None
        std, nothing = multiplier * self.terms.max_grad_norm, torch.zeros(len(own), dtype=torch.float64)
        shares = (add_noise([nothing], std, stream)[0].numpy() for stream in streams)
        total = vector_of(own, self.terms, step, self.terms.honest)
        for share in shares:
            total += vector_of(share, self.terms, step, self.terms.honest)
        return decode(total, step)

    def streams(self, seed: int, number: int) -> list[Stream]:
        """Of each other honest hospital in training `number`; `seed = -1`: from the operating system."""
        others = range(1, self.terms.honest)
        if seed == FROM_ENTROPY:
            return [Stream(secrets.token_bytes(32)) for _ in others]
        return [seeded_stream("audit of a joint sum", seed, number, other) for other in others]
