"""The error for users: one line that says what is wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input, explained in one line and shown without a traceback."""


class PublicMistake(UserError):
    """A mistake whose text depends only on the configuration and on numbers of records, which are public."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `valid`, or the whole list if none is near."""
    options = list(valid)
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; valid: {', '.join(options)}"
