from pathlib import Path

import pytest

from fl_ppae.studies.study_data import StudyData, study_data


@pytest.fixture
def data(data_file: Path, tmp_path: Path) -> StudyData:
    return study_data("mnist", data_file, "", {"train": 120, "val": 0, "test": 40}, tmp_path / "chosen")
