"""Terms fit together, or one line says what would be right."""

import itertools

import pytest
from secagg_parties import make_terms, names_of

from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.wire import Refused


@pytest.mark.parametrize("count", range(2, 12))
def test_two_groups_that_can_unmask_share_more_hospitals_than_collude(count: int) -> None:
    for colluders in range(count):
        try:
            threshold = make_terms(count, count, colluders=colluders).threshold
        except Refused:
            continue
        assert 2 * threshold - count > colluders  # the least that two groups have in common
        assert 2 * (threshold - 1) - count <= colluders  # the control: one fewer would not do
        assert threshold > colluders


def test_the_least_overlap_is_as_the_formula_says() -> None:
    groups = [set(group) for group in itertools.combinations(range(5), 4)]
    assert min(len(one & other) for one in groups for other in groups) == 2 * 4 - 5
    assert make_terms(5, 4, colluders=1).threshold == 4


@pytest.mark.parametrize(
    ("count", "minimum", "changes", "reason"),
    [
        (1, 1, {}, "needs 2 to 255 hospitals; this run has 1"),
        (256, 256, {}, "needs 2 to 255 hospitals; this run has 256"),
        (5, 6, {}, "min-hospitals = 6: must be 2 to 5"),
        (5, 1, {}, "min-hospitals = 1: must be 2 to 5"),
        (5, 2, {}, "min-hospitals = 2 is too few for 5 hospitals of which 0 may collude: must be at least 3"),
        (5, 3, {"colluders": 1}, "of which 1 may collude: must be at least 4"),
        (5, 5, {"colluders": 5}, "must be at least 6"),
        (5, 5, {"colluders": -1}, "-1 colluding hospitals: must be at least 0"),
        (5, 5, {"rounds": 33}, "a block of 33 rounds from round 1: must be 1 to 32 rounds"),
        (5, 5, {"rounds": 0}, "a block of 0 rounds"),
        (5, 5, {"first_round": 0}, "from round 0: must be"),
        (5, 5, {"config": b"short"}, "the digest of the configuration has 5 bytes instead of 32"),
        (2, 2, {"names": ("a", "a")}, "two hospitals of the run have the same name"),
        (2, 2, {"names": ("a", "")}, "a hospital's name has 0 bytes; it may have 1 to 200"),
        (2, 2, {"names": ("a", "b" * 201)}, "a hospital's name has 201 bytes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_in_one_line(
    count: int, minimum: int, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(Refused) as refusal:
        make_terms(count, minimum, **changes)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_terms_that_just_fit_are_taken() -> None:
    """The control of the test above."""
    for count, minimum, colluders in ((2, 2, 0), (5, 3, 0), (5, 4, 1), (5, 5, 4), (255, 255, 0)):
        assert isinstance(make_terms(count, minimum, colluders=colluders, rounds=32), Terms)


def test_every_term_changes_the_digest() -> None:
    terms = [
        make_terms(5, 4),
        make_terms(5, 5),
        make_terms(5, 4, run="run-2"),
        make_terms(5, 4, names=tuple(reversed(names_of(5)))),
        make_terms(5, 4, colluders=1),
        make_terms(5, 4, first_round=2),
        make_terms(5, 4, rounds=3),
        make_terms(5, 4, config=bytes([1] * 32)),
    ]
    assert len({one.digest for one in terms}) == len(terms)
