"""`fl-ppae runs`, `show` and `data`."""

import json
from pathlib import Path

import pytest
from commands.command_line import finished, run
from support import real_data

from fl_ppae import cli
from fl_ppae.data.registry import DATASETS
from fl_ppae.files import write_json


def test_show_marks_a_stand_in_and_a_nominal_epsilon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", str(finished(tmp_path / "run", scope="encoder"))) == cli.OK
    text = " ".join(capsys.readouterr().out.split())
    assert "STAND-IN FOR PATHMNIST, NOT REAL DATA" in text
    assert "7.50 nominal, not a guarantee" in text
    assert "epsilon (encoder updates)" in text
    assert "declined: budget spent" in text
    assert "Not everything that left a hospital has a formal guarantee." in text

    assert run("show", str(finished(tmp_path / "formal"))) == cli.OK
    assert "nominal" not in capsys.readouterr().out


def test_runs_lists_and_show_finds_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FL_PPAE_HOME", str(home))
    assert run("runs") == cli.OK
    finished(home / "runs" / "one")
    (home / "runs" / "two").mkdir()
    write_json(home / "runs" / "two" / "summary.json", {"status": "failed", "error": "no luck"})
    capsys.readouterr()
    assert run("runs", "--json") == cli.OK
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert [(row["name"], row["status"]) for row in listed] == [("one", "completed"), ("two", "failed")]
    assert run("runs") == cli.OK
    assert run("show", "latest") == cli.OK
    assert "failed: no luck" in capsys.readouterr().out
    assert run("show", "one", "--json") == cli.OK
    assert json.loads(capsys.readouterr().out)["hospital_rows"]["hospital-0"]["epsilon"] == "7.5"
    assert run("show", "tow") == cli.USER_MISTAKE
    assert "did you mean 'two'" in capsys.readouterr().err


def test_data_lists_the_datasets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("data", "--json") == cli.OK
    rows = json.loads(capsys.readouterr().out)["datasets"]
    assert [row["dataset"] for row in rows] == [spec.title for spec in DATASETS.values()]
    assert run("data") == cli.OK
    assert "28 x 28" in capsys.readouterr().out


def test_data_says_what_the_official_bloodmnist_holds_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".medmnist").mkdir()
    (tmp_path / ".medmnist" / "bloodmnist.npz").symlink_to(real_data("bloodmnist.npz"))
    assert run("data", "--json") == cli.OK
    found = {row["dataset"]: row["findings"] for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert "5 images stand in both train and test: results on test flatter" in found["BloodMNIST"]
    assert found["PathMNIST"] == [], "control: it isn't there"
    assert run("data") == cli.OK
    assert "BloodMNIST: 8 of 11959 train records" in " ".join(capsys.readouterr().out.split())
