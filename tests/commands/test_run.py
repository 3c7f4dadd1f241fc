"""`fl-ppae run`: what it prints, how it ends, and that it deals its data once."""

import json
from pathlib import Path

import pytest
from commands.command_line import STAND_IN, finished, run
from flwr_datasets import partitioner
from support import SMALL

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal


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
    command = ("run", *STAND_IN, "--in-process", "-c", f"output-dir={out_dir}", "--json")
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
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={tmp_path / 'out'}") == cli.RUN_FAILED
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
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={out_dir}") == cli.INTERRUPTED
    assert json.loads((out_dir / "summary.json").read_text())["error"] == "interrupted"
    assert "fl-ppae: interrupted" in capsys.readouterr().err


def test_a_run_deals_its_data_once(data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(partitioner.IidPartitioner):
        made = 0

        def __init__(self, num_partitions: int) -> None:
            super().__init__(num_partitions)
            Counted.made += 1

    monkeypatch.setattr(partitioner, "IidPartitioner", Counted)
    values = {**SMALL, "data-file": str(data_file), "output-dir": str(tmp_path / "run")}
    values["worth-joining"] = "none"
    pairs = [part for key, value in values.items() for part in ("-c", f"{key}={value}")]
    assert cli.main(["run", "mnist_iid", "--in-process", "--hospitals", "3", *pairs]) == cli.OK
    assert Counted.made == 1
    report = (tmp_path / "run" / "report.html").read_text()
    assert "attacker, linear" in report, "the report too has used the deal"
