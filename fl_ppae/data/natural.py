"""Natural order: `image2` comes before `image10`."""

from __future__ import annotations

import re

_NUMBER = re.compile("([0-9]+)")


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """A key to sort names by: letters without regard to case, runs of digits as numbers."""
    parts = _NUMBER.split(name.casefold())
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name
