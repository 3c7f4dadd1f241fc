"""The one error a user is meant to read: a line that names what is wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input, told in one line. Shown without a traceback."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `valid`, or the whole list when none is near."""
    options = list(valid)
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; valid: {', '.join(options)}"
