"""The place inside a round of training where an audit adds gradients of its own and sees the sums.

Only code in the hospital's own process can set a watch, for the current thread and the length of a `with`
block; no message, configuration or node config can. Without one, nothing here has an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fl_ppae.privacy.clipping import Rows


@dataclass(frozen=True, eq=False)
class Watch:
    """What an audit adds to each step and sees of it.

    Attributes:
        slots: number of canaries. They are drawn like records, and counted nowhere.
        gradients: from the canaries in a batch, as numbers below `slots`, one `Rows` per noised parameter.
            They are clipped and summed with the records' gradients.
        observe: called in every step with the clipped sums and with what is released of them.
    """

    slots: int
    gradients: Callable[[np.ndarray], Sequence[Rows]]
    observe: Callable[[Sequence[Tensor], Sequence[Tensor]], None]


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let `watch` see every step that is trained in this thread inside the block."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def current_watch() -> Watch | None:
    """The watch on this thread; None outside an audit."""
    return _watch.get()
