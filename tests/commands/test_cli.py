import json
import subprocess
import sys
from pathlib import Path

import pytest

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.files import write_json
from fl_ppae.runs.directory import HOSPITAL_COLUMNS, ROUND_COLUMNS

SMALL = ["pathmnist_iid", "--hospitals", "2", "-c", "data-source=stand-in", "-c", "num-server-rounds=2"]


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests here, so that the stand-in is drawn once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FL_PPAE_HOME", str(shared_home))
    return shared_home


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as end:  # argparse ends this way
        return int(end.code or 0)


def finished(path: Path, scope: str = "autoencoder", **summary: object) -> Path:
    """A run directory as a finished run leaves it."""
    formal = scope == "autoencoder"
    config = RunConfig.from_flat({"dp-scope": scope}).to_flat()
    label = "stand-in for PathMNIST"
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", {"simulation": "x", "config": config, "data_source": {"label": label}})
    row = {"round": 1, "hospital": "hospital-0", "records": 900, "noise_multiplier": 1.5, "epsilon": 7.5}
    rows = [row | {"status": "trained"}, row | {"round": 2, "status": "declined", "reason": "budget spent"}]
    lines = [",".join(str(row.get(column, "")) for column in HOSPITAL_COLUMNS) for row in rows]
    (path / "hospitals.csv").write_text("\n".join([",".join(HOSPITAL_COLUMNS), *lines]) + "\n")
    (path / "rounds.csv").write_text(",".join(ROUND_COLUMNS) + "\n1,1,0,0,7.5,,,,,,,\n")
    values: dict[str, object] = {
        "status": "completed",
        "phase": "done",
        "simulation": "x",
        "data_source": label,
        "accuracy": 0.7,
        "auc": None,
        "reconstruction_loss": 0.02,
        "epsilon": {"hospital-0": 7.5},
        "epsilon_max": 7.5,
        "guarantees": {
            "updates": {"epsilon": 7.5, "delta": 1e-5, "formal": formal, "note": "a note"},
            "encodings": {"epsilon": None, "delta": None, "formal": False, "note": "plain"},
        },
        "formal": False,
        "leakage": {"cosine": 0.3},
        "baselines": {"raw_pixels": {"accuracy": 0.8}, "random_encoder": {"accuracy": 0.65, "cosine": 0.2}},
    }
    write_json(path / "summary.json", values | summary)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "COMMAND"),
        (("rnu",), "'rnu'"),
        (("run", "pathmnist_idd"), "did you mean 'pathmnist_iid'"),
        (("run", "pathmnist_iid", "-c", "dp-scop=none"), "did you mean 'dp-scope'"),
        (("run", "pathmnist_iid", "-c", "dp-scope=all"), "'frozen-decoder'"),
        (("run", "pathmnist_iid", "-c", "seed"), "not key=value"),
        (("run", "pathmnist_iid", "-c", "checkpoint-every=1"), "not built yet"),
        (("run", "pathmnist_iid", "-c", f"output-dir={Path(__file__).parent}"), "is taken"),
        (("run", "pathmnist_iid", "-c", f"output-dir={__file__}"), "is taken"),
        (("plan", "pathmnist_iid", "-c", "target-epsilon=-1"), "greater than 0"),
        (("plan", "pathmnist_iid", "--hospitals", "0"), "--hospitals 0"),
        (("plan", "pathmnist_iid", "--hospitals", "two"), "'two'"),
        (("plan", "mnist_iid", "-c", "data-source=stand-in", "--hospitals", "900"), "min-records"),
        (("plan", "mnist_iid", "-c", "data-source=stand-in", "-c", "target-delta=0.1"), "1/records"),
        (("show", "nothing"), "no run 'nothing'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == cli.USER_MISTAKE
    out, err = capsys.readouterr()
    assert words in err
    assert err.startswith("fl-ppae: ")
    assert err.count("\n") == 1
    assert not out


def test_the_command_line_itself_imports_nothing_slow() -> None:
    code = "import sys, fl_ppae.cli as c; c._parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "flwr", "ray", "numpy", "pydantic", "rich"} & set(modules.split())


def test_plan_shows_each_hospital_and_says_what_is_nominal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *SMALL, "--json", "-c", "batch-size=1500", "-c", "dp-scope=encoder") == cli.OK
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert [row["name"] for row in plan["hospitals"]] == ["hospital-0", "hospital-1"]
    assert all(row["epsilon_total"] <= 8 for row in plan["hospitals"])
    assert all(row["epsilon_total_shared_noise"] > 0 for row in plan["hospitals"])
    assert not plan["formal"]
    assert "nominal, not a guarantee" in err
    assert "sample rate 0.75" in err

    assert run("plan", *SMALL, "-c", "dp-scope=encoder") == cli.OK
    out, _ = capsys.readouterr()
    assert "STAND-IN FOR PATHMNIST, NOT REAL DATA" in out
    assert "nominal" in out


def test_run_shows_the_result_and_only_json_on_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fl_ppae.simulation import in_process

    def completes(config: RunConfig, deal: Deal, simulation: str) -> Path:
        print("something a library prints")
        assert (config.data_source, len(deal.train), simulation) == ("stand-in", 2, "pathmnist_iid")
        return finished(Path(config.output_dir))

    monkeypatch.setattr(in_process, "run_in_process", completes)
    out_dir = tmp_path / "out"
    command = ("run", *SMALL, "--in-process", "-c", f"output-dir={out_dir}", "--json")
    assert run(*command) == cli.OK
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["run_directory"] == str(out_dir)
    assert document["summary"]["status"] == "completed"
    assert f"artefacts: {out_dir}" in err
    assert "round 1/2" in err
    assert run(*command) == cli.USER_MISTAKE  # the directory is taken now


@pytest.mark.parametrize("status", ["failed", "running"])
def test_a_run_that_does_not_complete_ends_with_1(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fl_ppae.simulation import in_process

    def ends(config: RunConfig, _deal: Deal, _simulation: str) -> Path:
        path = finished(Path(config.output_dir), status=status)
        if status == "failed":
            raise RuntimeError("the disk\nis full")
        return path

    monkeypatch.setattr(in_process, "run_in_process", ends)
    assert run("run", *SMALL, "--in-process", "-c", f"output-dir={tmp_path / 'out'}") == cli.RUN_FAILED
    last = capsys.readouterr().err.splitlines()[-1]
    cause = "the disk is full (log: " if status == "failed" else "ended with status 'running'"
    assert last.startswith("fl-ppae: run failed: ")
    assert cause in last


def test_an_interrupted_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fl_ppae.simulation import in_process

    def interrupt(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(in_process, "run_in_process", interrupt)
    out_dir = tmp_path / "out"
    assert run("run", *SMALL, "--in-process", "-c", f"output-dir={out_dir}") == cli.INTERRUPTED
    assert json.loads((out_dir / "summary.json").read_text())["error"] == "interrupted"
    assert "fl-ppae: interrupted" in capsys.readouterr().err


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


def test_runs_lists_and_show_finds_by_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert [row["dataset"] for row in rows] == ["PathMNIST", "BloodMNIST", "MNIST", "CIFAR-10"]
    assert run("data") == cli.OK
    assert "28 x 28" in capsys.readouterr().out
