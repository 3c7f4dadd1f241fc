"""A hospital's ledger may only grow, in a run and from run to run."""

from pathlib import Path

import pytest

from strategies.chains import SeenChain, remembered

ONE, TWO, THREE, OTHER = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)


@pytest.mark.parametrize("kept", [True, False])
def test_a_chain_that_grows_is_accepted_and_one_that_is_shorter_or_parts_is_not(
    tmp_path: Path, kept: bool
) -> None:
    seen = SeenChain("A", tmp_path / "a.json" if kept else None)
    for chain in (ONE, ONE, ONE + TWO):
        assert seen.problem(chain) == ""
    for chain, words in (
        ("", "has 0 lines and had 2"),
        (ONE, "has 1 lines and had 2"),
        (OTHER, "is not the one of 2 lines"),
        (ONE + OTHER, "is not the one of 2 lines"),
        (ONE + OTHER + THREE, "is not the one of 2 lines"),
    ):
        assert words in seen.problem(chain)
        assert ("if its operator has accepted a loss, remove" in seen.problem(chain)) == kept
    assert seen.problem(ONE + TWO + THREE) == ""


def test_a_deployed_hospital_is_remembered_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert SeenChain("A", path).problem(ONE + TWO) == ""
    assert "has 1 lines and had 2" in SeenChain("A", path).problem(ONE)
    assert SeenChain("A", path).problem(ONE + TWO + THREE) == ""
    path.unlink()
    assert SeenChain("A", path).problem(ONE) == "", "whoever runs the server has accepted the loss"


def test_two_runs_at_once_may_see_a_chain_in_either_order_but_no_fork(tmp_path: Path) -> None:
    first, second = (SeenChain("A", tmp_path / "a.json") for _ in range(2))
    assert first.problem(ONE) == second.problem(ONE + TWO) == ""
    assert first.problem(ONE) == "", "its answer was under way"
    assert "is not the one" in first.problem(ONE + OTHER)
    assert first.problem(ONE + TWO + THREE) == ""


def test_names_are_kept_apart_and_name_no_path() -> None:
    paths = {remembered(name) for name in ("A", "B", "../../etc/passwd", "a/b")}
    assert len(paths) == 4
    assert len({path.parent for path in paths}) == 1
