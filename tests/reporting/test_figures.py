from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from fl_ppae import plotting
from fl_ppae.config import RunConfig
from fl_ppae.files import write_json
from fl_ppae.reporting import figures
from fl_ppae.runs.directory import ROUND_COLUMNS

RED = (0xC0 / 255, 0, 0)


def has_red(path: Path) -> bool:
    """Whether the figure has anything in the red that marks a stand-in."""
    pixels = image.imread(path)[..., :3]
    return bool((np.abs(pixels - RED).max(axis=-1) < 0.02).any())


@pytest.fixture
def rounds_csv(tmp_path: Path) -> Path:
    lines = [",".join(ROUND_COLUMNS), "1,2,0,0,2.5,,,,,,,", "2,2,0,0,4.5,0.7,0.9,0.02,0.5,0.2,0.4,0.1"]
    (tmp_path / "rounds.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "rounds.csv"


@pytest.mark.parametrize(
    ("label", "marked"), [("stand-in for MNIST", True), ("MNIST (official files)", False)]
)
def test_every_figure_is_drawn_and_marks_a_stand_in(
    label: str, marked: bool, tmp_path: Path, rounds_csv: Path
) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {number}" for number in range(12)]
    labels = {f"hospital-{number}": rng.integers(0, 12, 50).tolist() for number in range(3)}
    images = rng.random((10, 1, 8, 8))
    plotting.plot_label_distributions(labels, names, label, tmp_path / "labels.png")
    figures.plot_rounds(rounds_csv, tmp_path / "rounds.png", label, 8.0, formal=True)
    figures.plot_epsilon({"hospital-0": 4.5}, 8.0, tmp_path / "epsilon.png", label, formal=False)
    figures.plot_encodings(images, rng.normal(size=(10, 4, 3, 3)), tmp_path / "maps.png", label)
    figures.plot_encodings(images, rng.normal(size=(10, 50)), tmp_path / "vectors.png", label)
    drawn = sorted(tmp_path.glob("*.png"))
    assert [path.stem for path in drawn] == ["epsilon", "labels", "maps", "rounds", "vectors"]
    assert all(has_red(path) == marked for path in drawn)


def test_a_run_without_privacy_or_evaluation_is_drawn_too(tmp_path: Path, rounds_csv: Path) -> None:
    rounds_csv.write_text(",".join(ROUND_COLUMNS) + "\n1,2,0,0,,,,,,,,\n")
    config = RunConfig.from_flat({"dp-scope": "none"}).to_flat()
    write_json(tmp_path / "config.json", {"config": config})
    write_json(tmp_path / "summary.json", {"data_source": "MNIST", "epsilon": {"hospital-0": None}})
    figures.write_figures(tmp_path)
    assert (tmp_path / "figures" / "rounds.png").is_file()
    assert not (tmp_path / "figures" / "epsilon.png").exists()


def test_a_vector_is_folded_without_losing_numbers() -> None:
    (panel,) = figures._panels(np.arange(50.0))
    assert panel.shape == (7, 8)
    assert np.nansum(panel) == np.arange(50).sum()
