"""Studies that are really run: one cell against a whole run, workers that die, the commands."""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies.study_jobs import Job, slow, work

from fl_ppae.cli import main
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.server.classification import ResnetTraining
from fl_ppae.simulation.in_process import run_in_process
from fl_ppae.studies import paper_cell, partition_cell, table
from fl_ppae.studies.baselines import pca_components, pca_encode
from fl_ppae.studies.paper_grid import SMALL, PaperCell
from fl_ppae.studies.partition_grid import PartitionCell
from fl_ppae.studies.study_data import StudyData, study_data
from fl_ppae.studies.workers import work_off

TINY = replace(
    SMALL,
    fc_size=49,
    rounds=2,
    sample_rate=0.25,
    resnet=ResnetTraining(steps=2, batch=8),
    attacker_steps=2,
    victims=10,
)


@pytest.fixture
def data(data_file: Path, tmp_path: Path) -> StudyData:
    return study_data("mnist", data_file, "", {"train": 120, "val": 0, "test": 40}, tmp_path / "chosen")


def test_a_cell_is_what_a_whole_federated_run_gives(data: StudyData, tmp_path: Path) -> None:
    cell = PaperCell("mnist", "trained", "fc", 8.0, "autoencoder", 2, 3)
    lr, resnet = paper_cell.run_paper_cell(cell, TINY, data, threads=1)
    config = paper_cell.cell_config(cell, TINY, data).model_copy(update={"output_dir": str(tmp_path / "run")})
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


def test_the_paper_s_scope_is_marked_nominal_and_without_dp_there_is_no_epsilon(data: StudyData) -> None:
    cell = PaperCell("mnist", "trained", "fc", 8.0, "encoder", 1, 0)
    rows = paper_cell.run_paper_cell(cell, TINY, data, threads=1)
    assert {row["epsilon_status"] for row in rows} == {"nominal"}
    random = PaperCell("mnist", "random", "fc", None, "none", 1, 0)
    for row in paper_cell.run_paper_cell(random, TINY, data, threads=1):
        assert row["epsilon_status"] == "none" and "epsilon" not in row


def test_pca_of_as_many_directions_as_pixels_keeps_distances() -> None:
    import torch

    images = torch.rand(120, 2, 7, 7)
    mean, directions = pca_components(images)
    encoded = torch.from_numpy(pca_encode(mean, directions, images)).double()
    flat = images.flatten(1).double()
    assert encoded.shape == (120, 98)
    assert torch.allclose(torch.cdist(encoded, encoded), torch.cdist(flat, flat), atol=1e-4)


def test_images_are_always_the_same_ones_and_a_missing_file_is_named(
    data: StudyData, data_file: Path, tmp_path: Path
) -> None:
    again = study_data("mnist", data_file, "", {"train": 120, "val": 0, "test": 40}, tmp_path / "again")
    with np.load(data.file) as one, np.load(again.file) as other:
        assert all(np.array_equal(one[key], other[key]) for key in one.files)
    assert data.records == {"train": 120, "val": 33, "test": 40}
    with pytest.raises(UserError, match="no such file"):
        study_data("mnist", tmp_path / "none.npz", "", {"train": 0, "val": 0, "test": 0}, tmp_path)


def test_a_cell_that_fails_or_kills_its_process_ends_only_itself(tmp_path: Path) -> None:
    jobs = [Job(name) for name in ("a", "fails", "dies", "b", "c")]
    outcomes = {one.cell.name: one for one in work_off(jobs, work, 2, tmp_path)}
    assert set(outcomes) == {"a", "fails", "dies", "b", "c"}
    assert outcomes["fails"].error == "ValueError: a reason in two lines"
    assert "process died" in outcomes["dies"].error
    assert [outcomes[name].rows[0]["threads"] for name in "abc"] == ["1", "1", "1"]
    assert "said a" in "".join(path.read_text() for path in tmp_path.glob("*.log"))


def test_an_interrupted_study_stops_its_workers_at_once(tmp_path: Path) -> None:
    outcomes = work_off([Job("a"), Job("b"), Job("c")], slow, 2, tmp_path)
    next(outcomes)
    start = time.monotonic()
    outcomes.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 9


def _study(data_file: Path, folder: Path, *more: str) -> int:
    source = ["--datasets", "mnist", "--data", f"mnist={data_file}", "--workers", "1"]
    return main(["study", "paper", *source, "--output-dir", str(folder), *more])


def test_the_command_resumes_refuses_another_study_s_folder_and_says_so(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    # More than the 33 images of the server's split would be needed to fit PCA, so this cell fails.
    assert _study(data_file, folder, "--seeds", "0", "--only", "pca", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert "needs more than 49 images" in document["failed"][0]["error"]
    assert document["settings"]["sources"]["mnist"]["stand_in"] is False
    before = (folder / "cells.csv").read_bytes()
    assert _study(data_file, folder, "--seeds", "0", "--only", "pca") == 1
    assert (folder / "cells.csv").read_bytes() == before
    assert _study(data_file, folder, "--scale", "full", "--only", "pca") == 2
    assert "holds another study (scale differ)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--datasets", "minst"], "did you mean 'mnist'"),
        (["--data", "mnist"], "must be DATASET=FILE"),
        (["--data", "mnist=/nowhere.npz"], "no such file"),
        (["--only", "nothing-like-it"], "matches no cell"),
        (["--only", "("], "no regular expression"),
        (["--seeds", "a"], "comma-separated numbers"),
        (["--workers", "-1"], "--workers -1"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "paper", "--output-dir", str(tmp_path / "s"), *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and "\n" not in told
    assert not (tmp_path / "s").exists()


def _table(folder: Path) -> Path:
    rows = []
    for seed in range(3):
        for scope, privacy, status, accuracy in (
            ("none", "none", "none", 0.9),
            ("encoder", "8", "nominal", 0.88),
            ("autoencoder", "8", "formal", 0.8),
        ):
            cell = PaperCell(
                "mnist", "trained", "fc", None if privacy == "none" else 8.0, scope, 5, seed
            ).columns()
            epsilon = "" if privacy == "none" else 7.9
            rows.append(
                {
                    **cell,
                    "classifier": "lr",
                    "accuracy": accuracy,
                    "inversion_ssim": 0.5,
                    "epsilon": epsilon,
                    "epsilon_status": status,
                    "source": "stand-in for MNIST",
                    "stand_in": True,
                }
            )
    folder.mkdir()
    table.append(folder / "cells.csv", table.PAPER_COLUMNS, rows)
    return folder


@pytest.mark.parametrize(
    ("more", "code", "accuracy"),
    [([], 0, 0.8), (["--no-formal-only"], 0, 0.88), (["--min-accuracy", "0.95"], 1, None)],
)
def test_recommend_takes_a_guarantee_unless_told_otherwise(
    more: list[str], code: int, accuracy: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _table(tmp_path / "study")
    arguments = [
        "recommend",
        "--max-epsilon",
        "8",
        "--max-inversion-ssim",
        "0.6",
        "--study",
        str(folder),
        *more,
    ]
    assert main([*arguments, "--json"]) == code
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
    ("ssim", "accuracy", "told"), [(0.5, 0.85, True), (0.5, 0.7, False), (0.7, 0.85, False)]
)
def test_recommend_tells_of_an_encoding_that_is_as_good_and_touches_no_record(
    ssim: float, accuracy: float, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _table(tmp_path / "study")
    cell = PaperCell("mnist", "scatternet", "none", None, "none", 1, 0).columns()
    measured = {"classifier": "lr", "accuracy": accuracy, "inversion_ssim": ssim, "epsilon_status": "none"}
    row = {**cell, **measured, "source": "stand-in for MNIST", "stand_in": True}
    table.append(folder / "cells.csv", table.PAPER_COLUMNS, [row])
    wish = ["--max-epsilon", "8", "--max-inversion-ssim", "0.6", "--study", str(folder), "--json"]
    assert main(["recommend", *wish]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pick"]["accuracy"] == pytest.approx(0.8)
    assert ("ScatterNet, which no hospital's record has touched" in document["why"]) == told


def test_recommend_without_a_study_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--max-epsilon", "8", "--max-inversion-ssim", "0.6"]) == 2
    assert "fl-ppae study paper" in capsys.readouterr().err


def test_one_noise_for_all_charges_small_hospitals_more(small: Callable[..., RunConfig]) -> None:
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
    (row,) = partition_cell.run_partition_cell(cell, data)
    assert row["stand_in"] and row["epsilon_status"] == "formal"
    assert row["epsilon_max"] <= partition_cell.TARGET_EPSILON
    assert row["accuracy_worst"] <= row["accuracy_hospitals"]
    assert (row["hellinger"] == pytest.approx(0, abs=1e-7)) == (hospitals == 1)


@pytest.mark.slow
def test_a_stand_in_is_marked_in_every_row(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    arguments = ["study", "paper", "--datasets", "mnist", "--data-source", "stand-in", "--seeds", "0"]
    assert (
        main([*arguments, "--only", "scatternet|conv/eps1/autoencoder/h5", "--output-dir", str(folder)]) == 0
    )
    with (folder / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {(row["stand_in"], row["source"]) for row in rows} == {("true", "stand-in for MNIST")}
    assert (folder / "figures" / "frontier.png").stat().st_size > 10_000
