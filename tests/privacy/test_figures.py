"""An epsilon is written in one way, with what stands behind it."""

import pytest

from fl_ppae.privacy.figures import (
    BASES,
    FORMAL,
    NOMINAL,
    NONE,
    REFUTED,
    Figure,
    assumed_honest,
    formal_if,
    is_guarantee,
    largest,
    written,
)


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


def test_a_guarantee_that_assumes_honest_hospitals_is_never_written_without_them() -> None:
    basis = formal_if(16)
    assert written(4.0, basis) == "4.00 if at least 16 hospitals in a round are honest"
    assert written(4.0, basis, brief=True) == "4.00 if 16 hospitals are honest"
    assert written(4.0, basis, alone=13.2) == (
        "4.00 if at least 16 hospitals in a round are honest; 13.20 if all others collude"
    )
    assert written("4.0", basis, alone="13.2", brief=True) == (
        "4.00 if 16 hospitals are honest; 13.20 if all others collude"
    )
    assert written(4.0, FORMAL, alone="") == "4.00"


def test_the_assumption_is_read_back_from_the_basis() -> None:
    assert [assumed_honest(formal_if(honest)) for honest in (1, 16, None)] == [1, 16, None]
    assert is_guarantee(formal_if(3))
    assert is_guarantee(FORMAL)
    for basis in (NOMINAL, NONE, REFUTED, "", "formal if some are honest", "formal if 3 are honest, or not"):
        assert not is_guarantee(basis)
        assert assumed_honest(basis) is None


def test_together_hospitals_assume_what_any_of_them_assumes() -> None:
    own, joint = Figure(6.0, FORMAL), Figure(4.0, formal_if(3), 9.0)
    assert largest([own, joint]) == Figure(6.0, formal_if(3), 9.0)
    assert largest([Figure(10.0, FORMAL), joint]) == Figure(10.0, formal_if(3), 10.0)
    assert largest([joint, Figure(2.0, formal_if(5), 3.0)]) == Figure(4.0, formal_if(5), 9.0)
    assert largest([joint, Figure(1.0, NOMINAL)]).basis == NOMINAL
    assert largest([own]).alone is None
