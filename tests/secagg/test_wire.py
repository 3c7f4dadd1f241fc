"""Bytes have one reading; whatever else comes is refused."""

import numpy as np
import pytest
from secagg_parties import make_block, make_parties, make_terms, names_of, random_vectors

from fl_ppae.secagg.state import State
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.wire import Refused, digest, number, pack, read_number, unpack


@pytest.mark.parametrize("fields", [[], [b""], [b"", b""], [b"a", b"bc"], [bytes(300)] * 3])
def test_fields_come_back(fields: list[bytes]) -> None:
    assert unpack(pack(fields)) == fields


def test_fields_that_join_to_the_same_bytes_are_told_apart() -> None:
    lists = [[b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""], [b"", b"abc"], [pack([b"abc"])]]
    assert len({pack(fields) for fields in lists}) == len(lists)
    assert len({digest("label", *fields) for fields in lists}) == len(lists)
    assert digest("one", b"x") != digest("other", b"x")


def test_any_bytes_have_one_reading_or_none() -> None:
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(3000):
        data = bytes(rng.choice([0, 0, 0, 0, 1, 2, 255], rng.integers(0, 30)).astype(np.uint8))
        try:
            assert pack(unpack(data)) == data
            read += 1
        except Refused as refusal:
            assert "\n" not in str(refusal)
    assert 100 < read < 2900


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\1", b"\xff\xff\xff\xff", b"\0\0\0\2a", pack([b"ab"])[:-1]])
def test_bytes_that_end_too_early_are_refused(data: bytes) -> None:
    with pytest.raises(Refused, match=r"ends within a field|a number has"):
        unpack(data)


def test_numbers_of_other_lengths_are_refused() -> None:
    assert read_number(number(2**32 - 1)) == 2**32 - 1
    with pytest.raises(Refused, match="a number has 3 bytes instead of 4"):
        read_number(b"abc")


def test_terms_come_back_and_damaged_ones_are_refused() -> None:
    terms = make_terms(5, 4, colluders=1, names=(*names_of(4), "Klinik für Blut"))
    packed = terms.pack()
    assert Terms.unpack(packed) == terms
    for wrong in (b"", packed[:-1], packed + b"x", packed.replace("ü".encode(), b"\xff\xff")):
        with pytest.raises(Refused):
            Terms.unpack(wrong)


def test_a_state_comes_back_at_every_step_and_a_damaged_one_is_refused(tmp_path) -> None:
    parties = make_parties(tmp_path, 3)
    first = next(iter(parties.values()))
    states = []
    terms = make_terms(3)
    first.advertise(terms)
    states.append(first.state)
    make_block(parties, terms)
    states.append(first.state)
    first.masked(1, random_vectors([first.name], 3)[first.name])
    states.append(first.state)
    first.sign(1, names_of(3))
    states.append(first.state)
    assert len({state.pack() for state in states}) == 4
    for state in states:
        assert State.unpack(state.pack()) == state
        for wrong in (b"", state.pack()[:-1], state.pack() + b"x", state.pack()[4:]):
            with pytest.raises(Refused):
                State.unpack(wrong)
