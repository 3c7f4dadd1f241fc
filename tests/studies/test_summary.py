import csv
from pathlib import Path

import pytest
from studies.study_tables import failed, table_of

from fl_ppae.studies.columns import PAPER
from fl_ppae.studies.summary import sources, summarise, write_summary


def test_means_are_over_seeds_without_failed_cells() -> None:
    rows = [{}, {"seed": 2, "accuracy": 0.9}, failed("no luck", seed=3), {"autoencoder": "conv"}]
    first, second = summarise(table_of(rows))
    assert first.means["accuracy"].value == pytest.approx(0.85)
    assert first.means["accuracy"].half == pytest.approx(12.706 * 0.05, rel=1e-3)  # Student's t, of two
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
