"""Which test images were recognised survives a table, and makes differences paired by image."""

import numpy as np
import pytest
from studies.study_tables import NO_DP, table_of

from fl_ppae.studies.hits import packed, stacked, unpacked
from fl_ppae.studies.paper_claims import paper_verdicts


@pytest.mark.parametrize("count", [1, 7, 8, 1017])
def test_hits_come_back(count: int) -> None:
    hits = np.random.default_rng(0).random(count) < 0.7
    assert np.array_equal(unpacked(packed(hits)), hits)


def test_hits_of_other_images_are_not_stacked() -> None:
    hits = np.ones(9, bool)
    assert stacked([packed(hits), packed(hits)]).shape == (2, 9)
    assert stacked([packed(hits), ""]) is None
    assert stacked([packed(hits), packed(hits[:8])]) is None
    assert stacked([]) is None


def test_a_difference_on_few_images_is_undecided_although_seeds_agree() -> None:
    """Each seed recognises the same images: without the images in the interval it would have no width."""

    def verdict(images: int, *, known: bool) -> str:
        rows = []
        better, worse = np.arange(images) % 10 < 9, np.arange(images) % 10 < 8
        for seed in range(3):
            for encoding, hits in (("pixels", worse), ("trained", better)):
                cell = {**NO_DP, "seed": seed, "encoding": encoding, "accuracy": hits.mean() + seed / 1e5}
                cell["autoencoder"] = "fc" if encoding == "trained" else "none"
                rows.append({**cell, "hits": packed(hits) if known else ""})
        (found, *_) = paper_verdicts(table_of(rows))
        assert (found.claim, found.n, found.value) == ("1a", 3, pytest.approx(0.1))
        return found.verdict

    assert verdict(20, known=True) == "undecided"
    assert verdict(2000, known=True) == "holds"
    assert verdict(20, known=False) == "holds"  # the control
