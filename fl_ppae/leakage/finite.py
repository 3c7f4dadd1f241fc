"""NaN is never a measurement: compared with anything it is false, which reads as "no leakage"."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fl_ppae.errors import Unmeasurable


def check_finite(**samples: Tensor | NDArray[Any]) -> None:
    """Refuse samples, by name, with a number that is not finite.

    Raises:
        Unmeasurable: names the first such sample.
    """
    for name, sample in samples.items():
        numbers = sample.detach().cpu().numpy() if isinstance(sample, Tensor) else np.asarray(sample)
        if not np.isfinite(numbers).all():
            raise Unmeasurable(f"{name} holds numbers that are not finite: nothing can be measured on them")
