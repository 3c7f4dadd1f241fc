"""What the server sees depends on the sum alone, as far as statistics can tell.

Each element of a vector is masked on its own, so a long vector with the same value everywhere is as many runs
of a short one. The low bits of the elements are the same protocol in a small ring, with few enough views to
be counted.
"""

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare
from secagg_parties import TRAINED_ON, Parties, make_block, make_parties, make_terms, names_of, whole_round

from fl_ppae.secagg import hospital, unmasking
from fl_ppae.secagg.dealing import Kind, secret_at
from fl_ppae.secagg.masks import mask, pair_mask, private_key

LENGTH = 40_000
FOUR = names_of(4)
SURVIVORS, LATE = FOUR[:3], FOUR[3]
UNLIKELY = 1e-6


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return make_parties(tmp_path_factory.mktemp("four"), 4)


def uniformity(elements: np.ndarray) -> float:
    """p-value of all of the top and the low bytes being uniform."""
    return min(
        chisquare(np.bincount(elements >> 24, minlength=256)).pvalue,
        chisquare(np.bincount(elements & 255, minlength=256)).pvalue,
    )


def dependence(elements: np.ndarray, values: np.ndarray) -> float:
    """p-value of the low 3 bits being independent of a 3-bit value."""
    table = np.zeros((8, 8))
    np.add.at(table, (values, elements & 7), 1)
    return chi2_contingency(table).pvalue


def test_a_masked_vector_is_uniform_and_independent_of_the_vector(four: Parties) -> None:
    make_block(four, make_terms(4, 3, run="uniform"))
    values = np.random.default_rng(0).integers(0, 8, LENGTH, np.uint32)
    masked = {name: four[name].masked(1, values) for name in FOUR}
    for elements in masked.values():
        assert uniformity(elements) > UNLIKELY
        assert dependence(elements, values) > UNLIKELY
    one, other = masked[FOUR[0]], masked[FOUR[1]]
    assert dependence(one, other & 7) > UNLIKELY
    # The controls: without masks, and with the same mask for all.
    assert uniformity(values) < UNLIKELY
    assert dependence(values, values) < UNLIKELY
    same = mask(bytes(32), LENGTH)
    assert dependence(values + same, (values + 3 + same) & 7) < UNLIKELY


def view(four: Parties, run: str, values: dict[str, int]) -> np.ndarray:
    """(LENGTH,) the low 2 bits of all that the server sees, as one number: masked vectors, and the sum.

    The last hospital's vector comes too late, after its masks with the others were revealed.
    """
    block = make_block(four, make_terms(4, 3, run=run))
    vectors = {name: np.full(LENGTH, value, np.uint32) for name, value in values.items()}
    # The survivors reveal this key to the server.
    private = private_key(secret_at(four[LATE].state.secrets, 0, Kind.PRIVATE))
    late = four[LATE].masked(1, vectors[LATE])
    for other in SURVIVORS:
        late -= pair_mask(block.roster, 1, TRAINED_ON, (LATE, other), private, LENGTH)
    states = {name: four[name].state for name in SURVIVORS}
    masked = [four[name].masked(1, vectors[name]) for name in SURVIVORS]
    for name, state in states.items():
        four[name].kept = state.pack()  # the same round, to have its sum as well
    found = whole_round(four, block, {name: vectors[name] for name in SURVIVORS})
    assert found.total is not None
    number = np.zeros(LENGTH, np.int64)
    for elements in (*masked, late, found.total):
        number = 4 * number + (elements & 3)
    return number


def same_law(one: np.ndarray, other: np.ndarray) -> float:
    """p-value of two samples being of one law, over the cells that occur."""
    size = int(max(one.max(), other.max())) + 1
    table = np.stack([np.bincount(one, minlength=size), np.bincount(other, minlength=size)])
    return chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue


A, B, C, OTHER_SUM = (
    dict(zip(FOUR, values, strict=True))
    for values in ((1, 2, 3, 0), (3, 3, 0, 2), (0, 0, 6, 1), (1, 2, 1, 0))
)


def test_views_of_vectors_with_the_same_sum_have_one_law(four: Parties) -> None:
    """Three survive; the fourth comes late, and its vector differs as well."""
    first = view(four, "first", A)
    for number, values in enumerate((B, C)):
        assert same_law(first, view(four, f"same sum {number}", values)) > UNLIKELY
    assert same_law(first, view(four, "other sum", OTHER_SUM)) < UNLIKELY


def test_views_without_the_mask_of_its_own_show_the_late_vector(
    four: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what double masking is for."""
    for module in (hospital, unmasking):
        monkeypatch.setattr(module, "mask", lambda _, count: np.zeros(count, np.uint32))
    assert same_law(view(four, "late 0", A), view(four, "late 2", B)) < UNLIKELY
