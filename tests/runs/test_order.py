"""Which run is the latest, and whether a run is still running."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands.command_line import finished, run

from fl_ppae import cli
from fl_ppae.errors import UserError
from fl_ppae.files import home, write_json
from fl_ppae.runs.directory import claim, create_run_directory, start_run
from fl_ppae.runs.liveness import held, is_alive
from fl_ppae.runs.stored import all_runs, find_run, open_run

FIRST, SECOND, THIRD = (f"2026-0{month}-01T00:00:00.000000+00:00" for month in (1, 2, 3))


def under_home(name: str, **summary: object) -> Path:
    return finished(home() / "runs" / name, **summary)


def test_the_latest_run_is_the_one_that_started_last_whatever_is_written_later(
    capsys: pytest.CaptureFixture[str],
) -> None:
    under_home("b-new", started=SECOND)
    under_home("a-old", started=FIRST)
    assert run("report", "a-old") == cli.OK
    under_home("c-middle", started="2026-01-15T00:00:00.000000+00:00")
    os.utime(home() / "runs" / "a-old")
    assert find_run("latest").name == "b-new"
    assert run("runs", "--json") == cli.OK
    out = capsys.readouterr().out
    listed = json.loads(out[out.index("{") :])["runs"]
    assert [row["name"] for row in listed] == ["a-old", "c-middle", "b-new"]
    assert [row["started"] for row in listed] == sorted(row["started"] for row in listed)


def test_a_run_of_an_earlier_version_has_started_when_its_name_or_its_oldest_file_says() -> None:
    under_home("x-20260201T000000Z-abc")
    unnamed = under_home("copied")
    for path in unnamed.iterdir():
        os.utime(path, (0, 1_768_000_000 + len(path.name)))  # on 2026-01-09
    under_home("recorded", started=THIRD)
    assert [run.name for run in all_runs()] == ["copied", "x-20260201T000000Z-abc", "recorded"]


def test_an_unreadable_run_without_a_time_is_never_the_latest() -> None:
    under_home("whole", started=FIRST)
    (under_home("damaged") / "summary.json").write_text("{")
    assert find_run("latest").name == "whole"
    (under_home("x-20260201T000000Z-abc") / "summary.json").write_text("{")
    with pytest.raises(UserError, match="x-20260201T000000Z-abc is unreadable"):
        find_run("latest")


def test_a_run_records_its_start(tmp_path: Path) -> None:
    first, second = (create_run_directory(tmp_path / name, "x") for name in "ab")
    assert first.summary["started"] < second.summary["started"]
    assert open_run(first.path).started == first.summary["started"]


def test_two_runs_that_ask_for_one_directory_at_once_do_not_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path / "run")
    monkeypatch.setattr("fl_ppae.runs.directory.check_free", lambda _: None)  # it looked a moment earlier
    with pytest.raises(UserError, match="is taken"):
        claim(tmp_path / "run")


def test_a_run_is_alive_as_long_as_its_process_holds_it(tmp_path: Path) -> None:
    assert not is_alive(tmp_path)
    with held(tmp_path):
        assert is_alive(tmp_path)
    assert not is_alive(tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_killed_run_is_shown_as_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished(tmp_path / "run", status="running", phase="training")
    code = (
        "import sys, pathlib; from fl_ppae.runs.liveness import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert open_run(path).state == "running", "control"
    process.kill()
    process.communicate()
    assert open_run(path).state == "interrupted"
    assert run("show", str(path)) == cli.OK
    assert capsys.readouterr().out.startswith("run was interrupted")


def test_where_locks_do_not_work_a_run_counts_as_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path):
        assert is_alive(tmp_path)


def test_every_command_says_first_that_a_run_is_still_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = (finished(tmp_path / name, status="running", phase="training") for name in "ab")
    words = "a is still running (training, 1 of 10 rounds so far): this is not its result"
    with held(path):
        assert run("show", str(path)) == cli.OK
        assert " ".join(capsys.readouterr().out.split()).startswith(words)
        assert run("report", str(path)) == cli.OK
        assert " ".join(capsys.readouterr().out.split()).startswith(words)
        assert words in (path / "report.html").read_text()
        assert run("show", str(path), "--json") == cli.OK
        document = json.loads(capsys.readouterr().out)
        assert (document["state"], document["notices"]) == ("running", [words])
        assert run("compare", str(path), str(other)) == cli.OK
        err = " ".join(capsys.readouterr().err.split())
        assert "a is still running: these are not its results" in err
        assert "b did not complete: status interrupted" in err
        assert run("audit", str(path)) == cli.USER_MISTAKE
        assert "a has status 'running'; only a completed run" in capsys.readouterr().err
    write_json(path / "summary.json", {"status": "completed"})
    assert run("show", str(path)) == cli.OK
    assert "still running" not in capsys.readouterr().out, "control"


def test_a_line_that_is_being_written_is_left_out_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    claim(path)
    with held(path):
        log = start_run(path, "x")
        log.append_round({"round": 1, "hospitals_trained": 3})
        with (path / "rounds.csv").open("a") as file:
            file.write("2,3,0")
        assert [row["round"] for row in open_run(path).rows("rounds.csv")] == ["1"]
        assert not open_run(path).problems
        log.update(status="completed")
        assert open_run(path).problems["rounds.csv"] == "its last line is incomplete; it may be cut short"
