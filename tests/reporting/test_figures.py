from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from fl_ppae import plotting
from fl_ppae.config import RunConfig
from fl_ppae.files import write_json
from fl_ppae.reporting import figures
from fl_ppae.reporting.encoding_maps import as_maps
from fl_ppae.runs.directory import ROUND_COLUMNS


def has_red(path: Path) -> bool:
    """Whether the figure contains the red that marks a stand-in."""
    pixels = image.imread(path)[..., :3]
    return bool((np.abs(pixels - to_rgb(plotting.LOUD)).max(axis=-1) < 0.02).any())


def write_run(folder: Path, source: str, rows: list[str], spent: float | None, scope: str) -> None:
    config = RunConfig.from_flat({"dp-scope": scope}).to_flat()
    write_json(folder / "config.json", {"config": config})
    write_json(folder / "summary.json", {"data_source": source, "epsilon": {"hospital-0": spent}})
    (folder / "rounds.csv").write_text("\n".join([",".join(ROUND_COLUMNS), *rows]) + "\n")


@pytest.mark.parametrize(
    ("label", "marked"), [("stand-in for MNIST", True), ("MNIST (official files)", False)]
)
def test_every_figure_is_drawn_and_marks_a_stand_in(label: str, marked: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {number}" for number in range(12)]
    counts = {f"hospital-{number}": rng.integers(0, 50, 12) for number in range(3)}
    images = rng.random((10, 1, 8, 8))
    rows = ["1,2,0,0,2.5,nominal,,,,,,,", "2,2,0,0,4.5,nominal,0.7,0.9,0.02,0.5,0.2,0.4,0.1"]
    write_run(tmp_path, label, rows, 4.5, "encoder")
    drawn = tmp_path / "figures"
    plotting.plot_label_distributions(counts, names, label, drawn / "labels.png")
    figures.write_figures(tmp_path)
    figures.plot_encodings(images, rng.normal(size=(10, 4, 3, 3)), drawn / "maps.png", label)
    figures.plot_encodings(images, rng.normal(size=(10, 50)), drawn / "vectors.png", label)
    found = sorted(drawn.glob("*.png"))
    assert [path.stem for path in found] == ["epsilon", "labels", "maps", "rounds", "vectors"]
    assert all(has_red(path) == marked for path in found)


def test_a_run_without_privacy_or_evaluation_is_drawn_too(tmp_path: Path) -> None:
    write_run(tmp_path, "MNIST", ["1,2,0,0,,,,,,,,"], None, "none")
    figures.write_figures(tmp_path)
    assert (tmp_path / "figures" / "rounds.png").is_file()
    assert not (tmp_path / "figures" / "epsilon.png").exists()


def test_a_source_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    write_run(tmp_path, "MNIST (file $\\x$.npz)", ["1,2,0,0,,,,,,,,"], None, "none")
    figures.write_figures(tmp_path)
    assert (tmp_path / "figures" / "rounds.png").is_file()


def test_a_vector_is_folded_without_losing_numbers() -> None:
    maps = as_maps(np.arange(100.0).reshape(2, 50))
    assert maps.shape == (2, 1, 7, 8)
    assert np.nansum(maps, axis=(1, 2, 3)).tolist() == [np.arange(50).sum(), np.arange(50, 100).sum()]
