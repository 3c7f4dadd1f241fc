from typing import Any

import pytest
from studies.study_tables import NO_DP, NOMINAL, table_of

from fl_ppae.studies.paper_claims import paper_verdicts
from fl_ppae.studies.partition_claims import partition_verdicts


def accuracies(pixels: float, plain: float, private: float, spread: float) -> list[dict[str, Any]]:
    """Three seeds of LR on raw pixels and on `fc` with and without DP, with one hospital."""
    rows = []
    for seed, shift in enumerate((-spread, 0.0, spread)):
        rows += [
            {**NO_DP, "seed": seed, "encoding": "pixels", "autoencoder": "none", "accuracy": pixels},
            {**NO_DP, "seed": seed, "accuracy": plain + shift},
            {**NOMINAL, "seed": seed, "privacy": "1", "accuracy": private},
        ]
    return rows


@pytest.mark.parametrize(
    ("plain", "private", "spread", "raises", "costs"),
    [
        (0.95, 0.80, 0.001, "holds", "holds"),
        (0.85, 0.84, 0.001, "does not hold", "does not hold"),
        (0.91, 0.86, 0.05, "undecided", "undecided"),
    ],
)
def test_a_verdict_depends_on_the_whole_interval(
    plain: float, private: float, spread: float, raises: str, costs: str
) -> None:
    found = paper_verdicts(table_of(accuracies(0.90, plain, private, spread)))
    central = {one.claim: one for one in found if one.setting.startswith("central")}
    assert (central["1a"].verdict, central["1b"].verdict) == (raises, costs)
    assert f"{plain:.3f}" in central["1a"].compared


def test_a_claim_without_rows_or_with_one_seed_is_undecided() -> None:
    rows = [one for one in accuracies(0.9, 0.95, 0.8, 0.0) if one["seed"] == 0]
    assert {one.verdict for one in paper_verdicts(table_of(rows))} == {"undecided"}


def test_seeds_are_paired() -> None:
    rows = accuracies(0.90, 0.95, 0.80, 0.0)
    alone = {**NO_DP, "seed": 7, "accuracy": 0.1}  # a seed that no other configuration has
    (one, *_) = paper_verdicts(table_of([*rows, alone]))
    assert (one.claim, one.n, one.value) == ("1a", 3, pytest.approx(0.05))


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "does not hold")])
def test_the_cosine_is_ranked_against_the_attacker(sign: int, verdict: str) -> None:
    rows = [
        {"cell": f"{number}/s0", "cosine": -number / 10, "inversion_ssim": 0.5 + sign * number / 20}
        for number in range(1, 9)
    ]
    last = paper_verdicts(table_of(rows))[-1]
    assert (last.claim, last.value, last.verdict) == ("3b", pytest.approx(sign), verdict)


def split(partition: str, seed: int, accuracy: float, **values: Any) -> dict[str, Any]:
    columns = {"partition": partition, "setting": "federated", "noise": "calibrated", "hospitals": 5}
    return {**columns, "seed": seed, "accuracy": accuracy, **values}


def test_a_split_is_compared_with_iid_for_the_same_number_of_hospitals() -> None:
    rows = [
        *(split("iid", seed, 0.80 + seed / 1000) for seed in range(3)),
        *(split("skewed", seed, 0.60 + seed / 1000) for seed in range(3)),
        *(split("skewed", seed, 0.95, hospitals=20) for seed in range(3)),  # has no IID to compare with
        *(split("skewed", seed, 0.95, noise="shared") for seed in range(3)),
    ]
    (only,) = partition_verdicts(table_of(rows))
    assert (only.claim, only.setting, only.verdict) == ("skewed", "5 hospitals", "holds")
    assert (only.value, only.n) == (pytest.approx(-0.2), 3)
