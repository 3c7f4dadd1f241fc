"""The error for users: one line that says what is wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input, explained in one line and shown without a traceback."""

    def __str__(self) -> str:
        return printable(super().__str__())


class PublicMistake(UserError):
    """A mistake whose text depends only on the configuration and on numbers of records, which are public."""


def printable(text: str) -> str:
    """`text` in one line of valid Unicode: what a terminal would obey or UTF-8 can't hold, as an escape.

    A file may have any name: with a line break, a terminal's control sequence, or bytes that are not UTF-8,
    which Python keeps as lone surrogates and which become `\\xe9`.
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    try:
        return f"\\x{letter.encode('ascii', 'surrogateescape')[0]:02x}"
    except UnicodeEncodeError:
        return letter.encode("unicode_escape").decode("ascii")


class Unmeasurable(UserError):
    """Nothing can be measured on these numbers, or on so few: an error, never a value that flatters."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `valid`, or the whole list if none is near."""
    options = list(valid)
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; valid: {', '.join(options)}"
