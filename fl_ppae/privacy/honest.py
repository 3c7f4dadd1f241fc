"""How many hospitals an epsilon assumes to be honest, and what it is if they are fewer.

A joint release (`events.JointGaussian`) has the noise of its `honest` hospitals together. If only h of them
keep their shares to themselves, its noise multiplier is that times sqrt(h / honest), because shares are
independent and of one size. With h = 1, all others collude, and only the hospital's own share protects its
records. `privacy.joint` shows that rounding each share changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from fl_ppae.privacy.events import Event, JointGaussian, by_kind

ALONE = 1


def fewest_honest(events: Iterable[Event]) -> int | None:
    """The assumption under which events are composed: the smallest `honest` of the joint ones; None without.

    One number covers all of them. Those that were planned for more honest hospitals then cost more.
    """
    _training, joint, *_others = by_kind(events)
    return min((event.honest for event in joint), default=None)


def assuming(events: Iterable[Event], honest: int) -> tuple[Event, ...]:
    """The same events if at most `honest` hospitals of each joint release are honest; never less costly."""
    return tuple(
        _with_honest(event, honest) if isinstance(event, JointGaussian) and event.honest > honest else event
        for event in events
    )


def shares_of_noise(events: Iterable[Event]) -> int:
    """How many hospitals' noise is in one release at most, at least 1: each was drawn by a sampler."""
    _training, joint, *_others = by_kind(events)
    return max((event.honest for event in joint), default=1)


def _with_honest(event: JointGaussian, honest: int) -> JointGaussian:
    less = math.sqrt(honest / event.honest)
    return replace(event, noise_multiplier=event.noise_multiplier * less, honest=honest)
