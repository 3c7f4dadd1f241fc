from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import without_pages

from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.files import read_json
from fl_ppae.server.classification import NetworkTraining
from fl_ppae.simulation.in_process import run_in_process
from fl_ppae.studies import paper_cell
from fl_ppae.studies.baselines import pca_components, pca_encode
from fl_ppae.studies.cells import CellWork
from fl_ppae.studies.paper_grid import SMALL, PaperCell
from fl_ppae.studies.study_data import StudyData

TINY = replace(
    SMALL,
    fc_size=49,
    rounds=2,
    sample_rate=0.25,
    resnet=NetworkTraining(steps=2, batch=8),
    attacker_steps=2,
    victims=10,
)


def rows_of(cell: PaperCell, data: StudyData) -> list[dict[str, Any]]:
    return CellWork(partial(paper_cell.measure, scale=TINY), {"mnist": data})(cell)


def test_a_cell_matches_a_whole_federated_run(
    data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pages(monkeypatch)
    cell = PaperCell("mnist", "trained", "fc", 8.0, "autoencoder", 2, 3)
    lr, resnet = rows_of(cell, data)
    config = paper_cell.cell_config(cell, data, TINY).model_copy(update={"output_dir": str(tmp_path / "run")})
    deal = make_deal(resolve(config), config, hospital_names(2))
    run = run_in_process(config, deal, "mnist_iid")
    summary = read_json(run / "summary.json")
    assert lr["accuracy"] == summary["accuracy"]
    assert lr["auc"] == pytest.approx(summary["auc"], abs=1e-9)
    assert lr["epsilon"] == summary["epsilon_max"]
    assert lr["reconstruction_loss"] == pytest.approx(summary["reconstruction_loss"])
    assert lr["cosine"] == pytest.approx(summary["leakage"]["cosine"], abs=1e-6)
    assert (resnet["classifier"], resnet["epsilon"]) == ("resnet18", lr["epsilon"])
    assert lr["epsilon_status"] == "formal" and lr["train_records"] == 120


def test_epsilon_is_nominal_under_the_paper_s_scope_and_absent_without_dp(data: StudyData) -> None:
    cell = PaperCell("mnist", "trained", "fc", 8.0, "encoder", 1, 0)
    rows = rows_of(cell, data)
    assert {row["epsilon_status"] for row in rows} == {"nominal"}
    random = PaperCell("mnist", "random", "fc", None, "none", 1, 0)
    for row in rows_of(random, data):
        assert row["epsilon_status"] == "none" and "epsilon" not in row


def test_pca_with_as_many_directions_as_pixels_keeps_distances() -> None:
    import torch

    images = torch.rand(120, 2, 7, 7)
    mean, directions = pca_components(images)
    encoded = torch.from_numpy(pca_encode(mean, directions, images)).double()
    flat = images.flatten(1).double()
    assert encoded.shape == (120, 98)
    assert torch.allclose(torch.cdist(encoded, encoded), torch.cdist(flat, flat), atol=1e-4)
