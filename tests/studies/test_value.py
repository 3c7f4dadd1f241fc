import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fl_ppae.cli import main
from fl_ppae.config import RunConfig
from fl_ppae.server.plain_networks import Budget
from fl_ppae.studies import value_cell
from fl_ppae.studies.cells import CellWork
from fl_ppae.studies.columns import VALUE
from fl_ppae.studies.hits import packed
from fl_ppae.studies.joining import NO, UNSHOWN, YES, Asked, advice
from fl_ppae.studies.study_data import StudyData, study_data
from fl_ppae.studies.summary import summarise
from fl_ppae.studies.table import append
from fl_ppae.studies.value_claims import value_verdicts
from fl_ppae.studies.value_figures import draw_value_figures
from fl_ppae.studies.value_grid import HONEST, SETTINGS, ValueCell, settings_of, value_cells
from fl_ppae.studies.verdict import FAILS, HOLDS, UNDECIDED

DATA = StudyData("bloodmnist", "images.npz", "file images.npz", "0", False, {})


def test_the_grid_is_small_and_changes_one_factor_at_a_time() -> None:
    cells = value_cells((0, 1))
    assert len({cell.name for cell in cells}) == len(cells) == 2 * len(SETTINGS) <= 2 * 30
    assert {cell.hospitals for cell in cells} == set(HONEST)


@pytest.mark.parametrize("cell", SETTINGS, ids=lambda cell: cell.setting)
def test_every_cell_stands_for_a_run_of_which_everything_is_formal(cell: ValueCell) -> None:
    config = value_cell.cell_config(cell, DATA)
    assert config.dp_scope == "autoencoder" and config.share == "updates" and config.classifier == "head"
    assert not config.diagnostics and config.protection == "secagg"


def row(seed: int, hits: np.ndarray, better: np.ndarray) -> dict[str, object]:
    cell = ValueCell(20, 100, "8", "joint", "iid", seed)
    gain = float(hits.mean() - better.mean())
    measured = {"gain": gain, "accuracy_personal": hits.mean(), "accuracy_alone": better.mean()}
    texts = {"hits": packed(hits), "hits_better": packed(better), "error": ""}
    found = {**cell.columns(), "source": "file x", "stand_in": "false", "epsilon_status": "formal"}
    return {name: str(value) for name, value in {**found, **measured, **texts}.items()}


@pytest.mark.parametrize(("gained", "verdict"), [(0.1, HOLDS), (-0.1, FAILS), (0.0, UNDECIDED)])
def test_joining_pays_only_where_the_whole_interval_is_above_zero(
    gained: float, verdict: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = [row(seed, rng.random(800) < 0.7 + gained, rng.random(800) < 0.7) for seed in range(4)]
    table = pd.DataFrame(rows)
    (found,) = value_verdicts(table)
    assert found.verdict == verdict and found.n == 4
    assert found.low < found.value < found.high
    draw_value_figures(summarise(table), tmp_path)
    assert (tmp_path / "value.png").stat().st_size > 5000
    (alone,) = value_verdicts(table[:1])
    assert math.isnan(alone.low) and alone.verdict == UNDECIDED


@pytest.mark.slow
def test_a_cell_of_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FROM_RANDOM", "_TUNED"):
        monkeypatch.setattr(value_cell, name, Budget(passes=1, fewest=20, most=20))
    data = study_data("bloodmnist", None, "stand-in", {"train": 600, "val": 100, "test": 200}, tmp_path)
    (found,) = CellWork(value_cell.measure, {"bloodmnist": data})(
        ValueCell(5, 50, "8", "joint", "dirichlet-0.5", 0)
    )
    assert found["epsilon_status"] == "formal" and found["noise_std"] > 0
    better = max(found["accuracy_alone"], found["accuracy_server"])
    assert found["gain"] == pytest.approx(found["accuracy_personal"] - better)


@pytest.mark.parametrize(("gained", "answer"), [(0.1, YES), (-0.1, NO), (0.0, UNSHOWN)])
def test_advice_follows_the_interval_of_the_nearest_setting(gained: float, answer: str) -> None:
    rng = np.random.default_rng(0)
    rows = [row(seed, rng.random(800) < 0.7 + gained, rng.random(800) < 0.7) for seed in range(4)]
    elsewhere = [{**one, "hospitals": "5", "gain": "0.5"} for one in rows]
    dear = [{**one, "privacy": "none", "gain": "0.9"} for one in rows]
    found = advice(pd.DataFrame([*rows, *elsewhere, *dear]), Asked(30, 80, 8.0))
    assert found is not None and found.answer == answer and found.row["hospitals"] == "20"
    RunConfig.from_flat(dict(settings_of(found.row)))
    assert advice(pd.DataFrame(rows), Asked(30, 80, 3.0)) is None


def test_recommend_says_whether_to_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = [row(seed, rng.random(800) < 0.8, rng.random(800) < 0.7) for seed in range(3)]
    append(tmp_path / "cells.csv", VALUE, rows)
    line = ["recommend", "--joining", "20", "--public", "100", "--study", str(tmp_path), "--json"]
    assert main([*line, "--max-epsilon", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == YES and "-c noise=joint" in found["command"]
    assert main([*line, "--max-epsilon", "1"]) == 2
    assert "no setting with an epsilon up to 1" in capsys.readouterr().err
