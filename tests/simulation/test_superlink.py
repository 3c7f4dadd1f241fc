"""A SuperLink for one run: failures are explained, and no process is left."""

import codecs
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fl_ppae.runs.status import RunFailed, mark_failed
from fl_ppae.simulation import superlink
from fl_ppae.simulation.flower_files import as_toml, last_error, without_mark
from fl_ppae.simulation.superlink import Submission, SuperLink, run_simulation

pytestmark = pytest.mark.xdist_group("superlink")

APP = """
import time
from pathlib import Path
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@server.main()
def main(grid, context):
    while len(list(grid.get_node_ids())) < 3:
        time.sleep(0.1)
    Path(context.run_config["output-dir"], "reached.txt").write_text("three nodes")
    time.sleep(context.run_config["seed"])
    raise RuntimeError("told to\\nfail")
"""
TABLE = """
[project]
name = "tiny"
version = "0.1.0"
description = "an app that fails after `seed` seconds"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "test"
[tool.flwr.app.components]
serverapp = "tiny_superlink_app:server"
clientapp = "tiny_superlink_app:client"
[tool.flwr.app.config]
output-dir = ""
seed = 0
"""
RUN = """
import sys
from pathlib import Path
from fl_ppae.simulation.superlink import Submission, SuperLink, run_simulation
run_simulation(Submission(Path(sys.argv[1]), {"output-dir": sys.argv[2], "seed": 600}, 3, 1), lambda: None)
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Flower app whose server fails, with its own home and with Flower settings that must be ignored."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLWR_HOME", "/nonexistent")
    (tmp_path / "tiny_superlink_app.py").write_text(APP)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "pyproject.toml").write_text(TABLE)
    return tmp_path / "app"


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def offspring(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return alive(psutil.Process(process.pid).children(recursive=True))


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_a_failing_run_names_its_cause_keeps_its_log_and_leaves_nothing(app: Path, tmp_path: Path) -> None:
    run_directory = tmp_path / "a run"
    run_directory.mkdir()
    before = set(psutil.Process().children(recursive=True))
    seen: set[psutil.Process] = set()

    def on_poll() -> None:
        seen.update(set(psutil.Process().children(recursive=True)) - before)

    with pytest.raises(RunFailed) as failure:
        run_simulation(Submission(app, {"output-dir": str(run_directory)}, 3, 64), on_poll)

    assert str(failure.value) == f"told to fail (log: {run_directory / 'flower.log'})"
    assert (run_directory / "reached.txt").read_text() == "three nodes"
    assert "RuntimeError: told to" in (run_directory / "flower.log").read_text()
    summary = json.loads((run_directory / "summary.json").read_text())
    assert summary == {"status": "failed", "error": "told to fail"}
    assert len(seen) > 5
    assert not alive(list(seen))
    assert not list((tmp_path / "home" / "logs").iterdir())


def test_nothing_is_left_when_the_caller_is_killed(app: Path, tmp_path: Path) -> None:
    run_directory = tmp_path / "run"
    run_directory.mkdir()
    caller = subprocess.Popen([sys.executable, "-c", RUN, str(app), str(run_directory)])
    try:
        wait_until(lambda: "raylet" in {process.name() for process in offspring(caller)}, 60)
        started = offspring(caller)
    finally:
        caller.kill()
        caller.wait()
    wait_until(lambda: not alive(started), 20)


def test_a_refused_submission_is_explained(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "\x1b[91mERROR\x1b[0m : earlier\n"
        "╭─ Error ──────────╮\n│ [code: 15] Bad   │\n│ run config.      │\n╰──────────────────╯\nlast\n"
    )
    assert last_error(log) == "[code: 15] Bad run config."
    log.write_text("fine\n\x1b[91mERROR\x1b[0m : the port is taken\nbye\n")
    assert last_error(log) == "ERROR : the port is taken"
    log.write_text("")
    assert last_error(log) == "no reason was given"


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperLink]:
    """A SuperLink that lives and does nothing, with a `flwr` that never ends."""
    (tmp_path / "flwr").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "flwr").chmod(0o755)
    (tmp_path / "pyproject.toml").write_text(TABLE)
    monkeypatch.setattr(superlink, "_script", lambda name: str(tmp_path / name))
    with subprocess.Popen(["sleep", "60"]) as process:
        yield SuperLink(process, os.environ, tmp_path, tmp_path / "log")
        process.kill()


def test_a_server_that_never_starts_ends_the_run(
    link: SuperLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_SERVER_SECONDS", 0.5)
    submission = Submission(tmp_path, {"output-dir": str(tmp_path / "run")}, 3, 1)
    with pytest.raises(RunFailed, match=r"Ray and the server did not start within 0\.5 s"):
        superlink._submit_and_follow(link, submission, lambda: None)


def test_a_server_that_has_started_is_given_its_time(
    link: SuperLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_SERVER_SECONDS", 0.5)
    (tmp_path / "flwr").write_text("#!/bin/sh\nsleep 1.5\nexit 3\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("{}")
    submission = Submission(tmp_path, {"output-dir": str(tmp_path / "run")}, 3, 1)
    assert superlink._submit_and_follow(link, submission, lambda: None) == "no reason was given"


def test_a_superlink_that_does_not_answer_ends_the_run(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_ANSWER_SECONDS", 0.5)
    with pytest.raises(RunFailed, match=r"did not say within 0\.5 s how the run ended"):
        superlink._outcome(link, lambda: None)


def test_rays_sockets_have_short_paths_whatever_tmpdir_is_and_a_full_tmp_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*, prefix: str, dir: str) -> str:
        assert len(dir + prefix) < 20
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(superlink.tempfile, "mkdtemp", full)
    with pytest.raises(RunFailed, match="/tmp, which can't be written: No space"):
        superlink.superlink(tmp_path / "log").__enter__()


def test_flower_reads_back_the_values_it_is_given(tmp_path: Path) -> None:
    from flwr.common.config import parse_config_args

    values = {"output-dir": 'a "b" \\ é', "target-delta": 1e-5, "seed": -1, "diagnostics": True}
    file = tmp_path / "values.toml"
    file.write_text(as_toml(values), encoding="utf-8")
    assert parse_config_args([str(file)]) == values


def test_the_caller_s_flower_settings_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_DATABASE", "/somewhere")
    monkeypatch.setenv("NO_PROXY", "example.org")
    environment = superlink._environment(tmp_path, "mark")
    assert {key for key in environment if key.startswith("FLWR_")} == {
        "FLWR_HOME",
        "FLWR_TELEMETRY_ENABLED",
        "FLWR_DISABLE_UPDATE_CHECK",
    }
    assert environment["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_a_completed_run_is_never_marked_failed(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"status": "completed"}')
    assert mark_failed(tmp_path, "too late") == "too late"
    assert json.loads((tmp_path / "summary.json").read_text()) == {"status": "completed"}


def test_the_error_of_the_run_itself_comes_first(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"status": "failed", "error": "its\\nown"}')
    assert mark_failed(tmp_path, "another") == "its own"


def test_flower_gets_a_simulation_without_its_byte_order_mark(app: Path, tmp_path: Path) -> None:
    from flwr.cli.config_utils import load_and_validate

    file = app / "pyproject.toml"
    assert without_mark(app, tmp_path / "scratch") == app
    sound = file.read_bytes()
    file.write_bytes(codecs.BOM_UTF8 + sound)
    with pytest.raises(ValueError, match="pyproject"):
        load_and_validate(file, check_module=False)
    copy = without_mark(app, tmp_path / "scratch")
    assert (copy / "pyproject.toml").read_bytes() == sound
    assert load_and_validate(copy / "pyproject.toml", check_module=False)
    assert file.read_bytes() == codecs.BOM_UTF8 + sound
