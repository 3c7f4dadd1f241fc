import json
from pathlib import Path

import pytest
from studies.study_tables import BASELINE, NO_DP, NOMINAL, study_of

from fl_ppae.cli import main
from fl_ppae.config import RunConfig

SOURCE = {"source": "stand-in for MNIST", "stand_in": True}
WISH = ["recommend", "--max-epsilon", "8", "--max-inversion-ssim", "0.6"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three seeds of one encoder without DP, with a nominal and with a formal epsilon."""
    configurations = ({**NO_DP, "accuracy": 0.9}, {**NOMINAL, "accuracy": 0.88}, {"accuracy": 0.8})
    rows = [{**one, "seed": seed, "hospitals": 5} for seed in range(3) for one in configurations]
    return study_of(tmp_path / "study", [{**row, **SOURCE} for row in rows])


@pytest.mark.parametrize(
    ("more", "code", "accuracy"),
    [([], 0, 0.8), (["--no-formal-only"], 0, 0.88), (["--min-accuracy", "0.95"], 1, None)],
)
def test_recommend_requires_a_guarantee_by_default(
    more: list[str], code: int, accuracy: float | None, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WISH, "--study", str(study), *more, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    found = (document["pick"] or {}).get("accuracy")
    assert found == (None if accuracy is None else pytest.approx(accuracy))
    assert document["data_source"] == "stand-in for MNIST"
    pairs = dict(part.split("=") for part in document["command"].split(" -c ")[1:])
    RunConfig.from_flat({**{key: _value(text) for key, text in pairs.items()}, "dataset": "mnist"})
    if accuracy is None:
        assert "accuracy 0.800 is below 0.95" in document["why"]


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize(
    ("ssim", "accuracy", "mentioned"), [(0.5, 0.85, True), (0.5, 0.7, False), (0.7, 0.85, False)]
)
def test_recommend_mentions_a_baseline_that_is_as_good_without_hospital_records(
    ssim: float, accuracy: float, mentioned: bool, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"cell": "baseline", "accuracy": accuracy, "inversion_ssim": ssim}
    study_of(study, [{**BASELINE, **SOURCE, **measured, "encoding": "scatternet"}])
    assert main([*WISH, "--study", str(study), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pick"]["accuracy"] == pytest.approx(0.8)
    assert ("ScatterNet, which uses no hospital's records" in document["why"]) == mentioned


def test_recommend_without_a_study_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WISH) == 2
    assert "fl-ppae study paper" in capsys.readouterr().err


def test_recommend_names_the_column_that_a_table_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cells.csv").write_text("cell,dataset,error\na,mnist,\n")
    assert main([*WISH, "--study", str(tmp_path)]) == 2
    assert "not the table of a paper study: it has no column 'source'" in capsys.readouterr().err
