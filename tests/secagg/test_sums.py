"""The sum is exact, whoever drops out and when, down to min-hospitals; below that nobody unmasks."""

from pathlib import Path

import numpy as np
import pytest
from secagg_parties import (
    Parties,
    is_sum,
    make_block,
    make_parties,
    make_roster,
    make_terms,
    names_of,
    plain_sum,
    random_vectors,
    signed_round,
    whole_round,
)

from fl_ppae.secagg.server import Block, read_dealings
from fl_ppae.secagg.unmasking import Unmasked
from fl_ppae.secagg.wire import Refused

FIVE = names_of(5)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_the_sum_is_exact(tmp_path: Path, count: int) -> None:
    parties = make_parties(tmp_path, count)
    lengths = (0, 1, 2, 101)
    block = make_block(parties, make_terms(count, rounds=len(lengths)))
    for server_round, length in enumerate(lengths, start=1):
        vectors = random_vectors(parties, length, server_round)
        found = whole_round(parties, block, vectors, server_round)
        assert not found.faults
        assert is_sum(found, vectors, parties)


def test_without_its_last_step_the_sum_is_still_masked(tmp_path: Path) -> None:
    parties = make_parties(tmp_path, 3)
    block = make_block(parties, make_terms(3))
    vectors = random_vectors(parties, 50)
    masked, _ = signed_round(parties, block, vectors)
    assert not (plain_sum(masked, parties) == plain_sum(vectors, parties)).any()


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return make_parties(tmp_path_factory.mktemp("five"), 5)


@pytest.mark.parametrize("case", range(12))
def test_any_dropouts_in_any_phase_leave_an_exact_sum_of_the_survivors(five: Parties, case: int) -> None:
    """At random, up to 2 of 5 leave, each at any step; one that left before a round is not waited for."""
    rng = np.random.default_rng(case)
    leaving = {FIVE[index]: int(rng.integers(0, 5)) for index in rng.choice(5, 2, replace=False)}
    stages = [[name for name in FIVE if leaving.get(name, 9) > step] for step in range(5)]
    block = make_block(five, make_terms(5, 3, run=f"run-{case}"), stages[0], stages[1])
    vectors = random_vectors(stages[2], 33, case)
    found = whole_round(five, block, vectors, 1, stages[3], stages[4])
    assert not found.faults
    assert is_sum(found, vectors, stages[2])


def test_a_hospital_that_missed_a_round_is_back_in_the_next(five: Parties) -> None:
    block = make_block(five, make_terms(5, 3, run="back"))
    for server_round, present in ((1, FIVE[1:]), (2, FIVE)):
        vectors = random_vectors(present, 9, server_round)
        found = whole_round(five, block, vectors, server_round)
        assert not found.faults
        assert is_sum(found, vectors, present)


def test_a_hospital_that_was_away_for_a_whole_block_is_back_in_the_next(five: Parties) -> None:
    first = make_block(five, make_terms(5, 3, run="blocks"), FIVE[1:])
    whole_round(five, first, random_vectors(FIVE[1:], 9))
    second = make_block(five, make_terms(5, 3, run="blocks", first_round=3))
    vectors = random_vectors(FIVE, 9, 1)
    found = whole_round(five, second, vectors, 3)
    assert not found.faults
    assert is_sum(found, vectors, FIVE)


def test_a_block_can_end_early(five: Parties) -> None:
    first = make_block(five, make_terms(5, 3, run="early", rounds=32))
    whole_round(five, first, random_vectors(FIVE, 9))
    second = make_block(five, make_terms(5, 3, run="early", first_round=2))
    vectors = random_vectors(FIVE, 9, 1)
    found = whole_round(five, second, vectors, 2)
    assert is_sum(found, vectors, FIVE)


def test_too_few_keys_and_no_hospital_deals(five: Parties) -> None:
    terms = make_terms(5, 3, run="few keys")
    sent = {name: five[name].advertise(terms) for name in FIVE[:2]}
    with pytest.raises(Refused, match="only 2 hospitals have sent their keys; this run needs 3"):
        five[FIVE[0]].share(sent)


def test_too_few_dealings_and_no_hospital_masks(five: Parties) -> None:
    roster, sent = make_roster(five, make_terms(5, 3, run="few dealings"))
    dealings, _ = read_dealings(roster, {name: five[name].share(sent) for name in FIVE[:2]}.items())
    with pytest.raises(Refused, match="only 2 hospitals have dealt shares"):
        Block(roster, dealings)
    with pytest.raises(Refused, match="only 2 hospitals have dealt shares"):
        five[FIVE[0]].receive({FIVE[1]: dealings[FIVE[1]].parcels[FIVE[0]]})


def test_too_few_survivors_and_no_hospital_signs(five: Parties) -> None:
    make_block(five, make_terms(5, 3, run="few survivors"))
    vectors = random_vectors(FIVE[:2], 9)
    for name in vectors:
        five[name].masked(1, vectors[name])
    with pytest.raises(Refused, match="only 2 hospitals survived; this run needs 3"):
        five[FIVE[0]].sign(1, FIVE[:2])


def test_too_few_signatures_and_no_hospital_unmasks(five: Parties) -> None:
    block = make_block(five, make_terms(5, 3, run="few signatures"))
    masked, signatures = signed_round(five, block, random_vectors(FIVE[:3], 9), signing=FIVE[:2])
    with pytest.raises(Refused, match="only 2 hospitals signed; it takes 3 to unmask"):
        five[FIVE[0]].unmask(1, tuple(masked), signatures)


def test_too_few_shares_and_there_is_no_sum(five: Parties) -> None:
    block = make_block(five, make_terms(5, 3, run="few shares"))
    found = whole_round(five, block, random_vectors(FIVE[:3], 9), unmasking=FIVE[:2])
    assert found == Unmasked(None, (), ())


def test_with_as_many_as_it_takes_in_every_phase_there_is_one(five: Parties) -> None:
    """The control of the five tests above: one hospital more."""
    three = FIVE[:3]
    block = make_block(five, make_terms(5, 3, run="enough"), three, three)
    vectors = random_vectors(three, 9)
    found = whole_round(five, block, vectors)
    assert is_sum(found, vectors, three)
