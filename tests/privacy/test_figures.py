"""An epsilon is written in one way, with what stands behind it."""

import pytest

from fl_ppae.privacy.figures import BASES, FORMAL, NOMINAL, NONE, REFUTED, Figure, largest, written


def test_only_a_guarantee_is_written_without_a_mark() -> None:
    assert written(4.0, FORMAL) == "4.00"
    for basis in set(BASES) - {FORMAL}:
        assert written(4.0, basis).endswith("not a guarantee")
        assert written(4.0, basis, brief=True).split()[0] == "4.00"
        assert written(4.0, basis, brief=True) != "4.00"


@pytest.mark.parametrize("empty", [None, ""])
def test_without_a_number_only_a_refuted_claim_is_marked(empty: str | None) -> None:
    assert written(empty, REFUTED, nothing="none") == "none refuted, not a guarantee"
    for basis in (FORMAL, NOMINAL, NONE):
        assert written(empty, basis) == "-"


def test_together_hospitals_have_the_largest_number_on_the_weakest_basis() -> None:
    formal, nominal, none = Figure(8.0, FORMAL), Figure(2.0, NOMINAL), Figure(None, NONE)
    refuted = Figure(5.0, REFUTED)
    assert largest([formal, Figure(3.0, FORMAL)]) == formal
    assert largest([formal, nominal]) == Figure(8.0, NOMINAL)
    assert largest([nominal, refuted, formal]) == Figure(8.0, REFUTED)
    assert largest([formal, none]) == Figure(None, NONE), "one without a number has no bound"
    assert largest([none, refuted]) == Figure(None, REFUTED)
    assert largest([]) == Figure(None, NONE)


@pytest.mark.parametrize("basis", ["", "certain", "FORMAL"])
def test_an_unknown_basis_is_never_shown_as_formal(basis: str) -> None:
    assert written(4.0, basis) == "4.00 of unknown basis, not a guarantee"
