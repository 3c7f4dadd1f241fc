"""Property-based tests in two tiers: a few cases in every run of the tests, thousands with `-m long`.

The cases are those of hypothesis without its clock and database: the same in every run.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fl_ppae.errors import UserError

T = TypeVar("T")


def tiers(*, short: int = 0, long: int) -> pytest.MarkDecorator:
    """`cases` of a test: how many to try, by tier; without `short`, it is in the long one alone."""
    tried_here = [pytest.param(short, id="short")] if short else []
    return pytest.mark.parametrize(
        "cases", [*tried_here, pytest.param(long, id="long", marks=pytest.mark.long)]
    )


def tried(cases: int, given: st.SearchStrategy[T], check: Callable[[T], Any]) -> None:
    """`check` about `cases` values of `given`, and say how many there were."""
    values = 0

    def counted(value: T) -> None:
        nonlocal values
        values += 1
        check(value)

    limits = settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    limits(hypothesis.given(given)(counted))()
    print(f"{values} cases")
    assert values >= 0.9 * cases, "the strategy has too few values"


def refused_in_one_line(work: Callable[[], Any], mistakes: type[Exception] = UserError) -> bool:
    """Whether `work` was refused; in any other way than in one line that says something it must not fail."""
    try:
        work()
    except mistakes as mistake:
        assert str(mistake).strip()
        assert "\n" not in str(mistake)
        return True
    return False


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` after one to four accidents: bytes flipped, lost, repeated, moved, inserted or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 8, 60, 400, len(content)])))
        piece = content[start:end]
        how = draw(st.sampled_from(["flip", "lose", "repeat", "insert", "cut", "move", "zero"]))
        if how == "flip" and piece:
            at = draw(st.integers(0, len(piece) - 1))
            piece = piece[:at] + bytes([piece[at] ^ draw(st.integers(1, 255))]) + piece[at + 1 :]
        elif how == "lose":
            piece = b""
        elif how == "repeat":
            piece = piece * 2
        elif how == "insert":
            piece = draw(st.binary(max_size=40)) + piece
        elif how == "zero":
            piece = bytes(len(piece))
        if how == "cut":
            content = content[:start]
        elif how == "move":
            rest = content[:start] + content[end:]
            to = draw(st.integers(0, len(rest)))
            content = rest[:to] + piece + rest[to:]
        else:
            content = content[:start] + piece + content[end:]
    return content


def junk(depth: int = 3) -> st.SearchStrategy[Any]:
    """What a JSON or TOML document can hold at any place."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["", "0", "1e309", "nan", "../..", "hospital-0", "trained", "\x00", "é" * 400]),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=depth * 2,
    )
