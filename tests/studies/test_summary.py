import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from studies.study_tables import failed, table_of

from fl_ppae.studies.columns import PAPER
from fl_ppae.studies.summary import mean_interval, sources, summarise, write_summary


@pytest.mark.parametrize("values", [[0.1, 0.2], [0.5, 0.7, 0.9], list(np.linspace(0, 1, 7) ** 2)])
def test_the_interval_is_student_s(values: list[float]) -> None:
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_interval_of_three_seeds_matches_a_t_table() -> None:
    # 4.303 for 2 degrees of freedom; the standard error of 1, 2, 3 is 1 / sqrt(3).
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.value, found.half) == (2.0, pytest.approx(4.3027 / 3**0.5, abs=1e-3))


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(mean_interval([0.5]).low) and mean_interval([0.5]).half is None
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_means_are_over_seeds_without_failed_cells() -> None:
    rows = [{}, {"seed": 2, "accuracy": 0.9}, failed("no luck", seed=3), {"autoencoder": "conv"}]
    first, second = summarise(table_of(rows))
    assert first.means["accuracy"].value == pytest.approx(0.85)
    assert (first.seeds, first.means["accuracy"].n, first.formal) == (2, 2, True)
    assert (second.seeds, second.keys["autoencoder"]) == (1, "conv")


def test_a_missing_value_is_left_out_of_its_metric_s_mean() -> None:
    (group,) = summarise(table_of([{"inversion_ssim": ""}, {"seed": 2}, {"seed": 3, "cosine": "0.5"}]))
    assert {name: mean.n for name, mean in group.means.items()} == {
        "accuracy": 3,
        "inversion_ssim": 2,
        "epsilon": 3,
        "cosine": 1,
    }


def test_unknown_values_are_empty_in_the_summary(tmp_path: Path) -> None:
    groups = summarise(table_of([{"autoencoder": "conv"}, {}, {"seed": 2, "accuracy": 0.81234567}]))
    write_summary(tmp_path / "summary.csv", groups, PAPER)
    with (tmp_path / "summary.csv").open() as file:
        alone, both = csv.DictReader(file)
    assert (alone["seeds"], alone["accuracy"], alone["accuracy_low"], alone["auc"]) == ("1", "0.8", "", "")
    assert (both["seeds"], both["accuracy"], both["source"]) == ("2", "0.806173", "MNIST (official files)")
    assert float(both["accuracy_low"]) < 0.806173 < float(both["accuracy_high"])


def test_a_source_that_must_be_marked_comes_first() -> None:
    drawn = {"dataset": "cifar10", "source": "drawn CIFAR-10", "stand_in": "true"}
    assert sources(summarise(table_of([{}, drawn]))) == "stand-in: drawn CIFAR-10; MNIST (official files)"
