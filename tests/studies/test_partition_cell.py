import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fl_ppae.config import RunConfig
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.studies import partition_cell
from fl_ppae.studies.cells import CellWork
from fl_ppae.studies.partition_cell import hellinger, heterogeneity
from fl_ppae.studies.partition_grid import PartitionCell
from fl_ppae.studies.study_data import study_data


def test_hellinger_is_a_distance_of_distributions() -> None:
    rng = np.random.default_rng(0)
    for one, other, third in itertools.permutations(rng.dirichlet(np.ones(5), 4), 3):
        assert hellinger(one, one) == pytest.approx(0, abs=1e-7)
        assert 0 <= hellinger(one, other) <= 1
        assert hellinger(one, other) == pytest.approx(hellinger(other, one))
        assert hellinger(one, third) <= hellinger(one, other) + hellinger(other, third) + 1e-12
        euclid = np.linalg.norm(np.sqrt(one) - np.sqrt(other)) / math.sqrt(2)
        assert hellinger(one, other) == pytest.approx(euclid)
    apart = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    assert hellinger(*apart) == 1
    assert heterogeneity(apart, [10, 10]) == pytest.approx(math.sqrt(1 - math.sqrt(0.5)))
    assert heterogeneity([np.array([0.5, 0.5])] * 3, [1, 2, 3]) == pytest.approx(0, abs=1e-7)


def test_shared_noise_costs_small_hospitals_more_epsilon(small: Callable[..., RunConfig]) -> None:
    records = {"small": 60, "middle": 300, "large": 900}
    config = small(dp_scope="autoencoder", noise_multiplier=0.0, target_epsilon=8.0, target_delta=1e-5)
    shared = partition_cell.with_shared_noise(config, records)
    spent = [plan_hospital(name, count, shared).epsilon_total or 0 for name, count in records.items()]
    assert spent == sorted(spent, reverse=True) and spent[0] > 8 > spent[2]


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["federated", "alone", "central"])
def test_a_partition_cell_of_the_stand_in(setting: str, tmp_path: Path) -> None:
    sizes = {"train": 200, "val": 100, "test": 100}
    data = study_data("bloodmnist", None, "stand-in", sizes, tmp_path)
    hospitals = 1 if setting == "central" else 3
    cell = PartitionCell("dirichlet-1", setting, "calibrated", hospitals, 0)
    (row,) = CellWork(partition_cell.measure, {"bloodmnist": data})(cell)
    assert row["stand_in"] and row["epsilon_status"] == "formal"
    assert row["epsilon_max"] <= partition_cell.TARGET_EPSILON
    assert row["accuracy_worst"] <= row["accuracy_hospitals"]
    assert (row["hellinger"] == pytest.approx(0, abs=1e-7)) == (hospitals == 1)
