from pathlib import Path

import numpy as np
import pytest

from fl_ppae.data.cache import Split
from fl_ppae.errors import UserError
from fl_ppae.studies.paper_grid import FULL, SMALL, paper_cells
from fl_ppae.studies.partition_grid import partition_cells
from fl_ppae.studies.study_data import StudyData, choose_by_class, study_data


def test_the_small_study_trains_180_encoders_and_names_each_cell_once() -> None:
    cells = paper_cells(SMALL, SMALL.datasets, (0, 1, 2))
    assert sum(cell.encoding == "trained" for cell in cells) == 180
    assert len({cell.name for cell in cells}) == len(cells) == 225
    full = paper_cells(FULL, FULL.datasets, (0,))
    assert {cell.autoencoder for cell in full} == {"none", "fc", "fc-deep", "conv", "conv-image"}
    assert {cell.epsilon for cell in full} == {None, 8.0, 3.0, 1.0}
    assert {cell.hospitals for cell in full} == {1, 5}


def test_the_partition_study_has_every_split_noise_and_size() -> None:
    cells = partition_cells((0,))
    assert len({cell.name for cell in cells}) == len(cells) == 1 + 8 * 2 * 3
    federated = {
        (cell.partition, cell.noise, cell.hospitals) for cell in cells if cell.setting == "federated"
    }
    assert len(federated) == 8 * 2 * 2


@pytest.mark.parametrize("size", [7, 50, 199])
def test_chosen_images_keep_the_class_proportions(size: int) -> None:
    labels = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
    rows = choose_by_class(Split(np.zeros((200, 1)), labels), size)
    assert len(np.unique(rows)) == size
    expected = np.bincount(labels, minlength=4) * size / 200
    assert np.abs(np.bincount(labels[rows], minlength=4) - expected).max() < 1
    assert np.array_equal(rows, choose_by_class(Split(np.zeros((200, 1)), labels), size))


def test_the_choice_of_images_is_fixed_and_a_missing_file_is_named(
    data: StudyData, data_file: Path, tmp_path: Path
) -> None:
    again = study_data("mnist", data_file, "", {"train": 120, "val": 0, "test": 40}, tmp_path / "again")
    with np.load(data.file) as one, np.load(again.file) as other:
        assert all(np.array_equal(one[key], other[key]) for key in one.files)
    assert data.records == {"train": 120, "val": 33, "test": 40}
    with pytest.raises(UserError, match="no such file"):
        study_data("mnist", tmp_path / "none.npz", "", {"train": 0, "val": 0, "test": 0}, tmp_path)
