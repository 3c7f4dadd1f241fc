"""Output that is closed, full, or not read to its end; signals that end a run."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands.command_line import STAND_IN, finished, run

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.files import read_json
from fl_ppae.simulation import in_process

COMMANDS = [
    ("--help",),
    ("--version",),
    ("runs",),
    ("runs", "--json"),
    ("show", "latest"),
    ("show", "latest", "--json"),
    ("compare", "a", "b"),
    ("data",),
    ("audit", "--list"),
    ("ledger", "show"),
    ("report", "a"),
]


@pytest.fixture(autouse=True)
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))
    for name in "ab":
        finished(tmp_path / "home" / "runs" / name)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def unread_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_output_that_can_not_be_written_is_one_line_and_an_unread_pipe_is_none(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command) == cli.OK, "control"
    assert capsys.readouterr().out
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert run(*command) == cli.USER_MISTAKE
        assert capsys.readouterr().err == "fl-ppae: the output can't be written: No space left on device\n"
    with os.fdopen(unread_pipe(), "w") as unread, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", unread)
        assert run(*command) == cli.OK
        assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert run(*command) == cli.USER_MISTAKE
    err = capsys.readouterr().err
    assert err == "fl-ppae: standard output is closed; send it to a file, or to /dev/null\n"


@pytest.mark.parametrize(
    ("redirections", "code", "words"),
    [
        ("", 0, "fl-ppae"),
        (">&-", 2, "fl-ppae: standard output is closed"),
        (">/dev/full", 2, "fl-ppae: the output can't be written"),
        ("<&-", 0, "fl-ppae"),
        ("2>&-", 0, "fl-ppae"),
        (">&- 2>&-", 2, ""),
        ("2>/dev/full >/dev/full", 2, ""),
    ],
)
def test_streams_that_a_shell_closed_or_filled(redirections: str, code: int, words: str) -> None:
    command = f'"{sys.executable}" -m fl_ppae.cli --version {redirections}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert (done.returncode, told.startswith(words), told.count("\n")) == (code, True, bool(words))


@pytest.mark.parametrize("kind", ["full", "unread"])
def test_a_run_goes_on_when_nobody_can_read_its_progress(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completes(config: RunConfig, deal: Deal, simulation: str) -> Path:
        return finished(Path(config.output_dir))

    monkeypatch.setattr(in_process, "run_in_process", completes)
    number = os.open("/dev/full", os.O_WRONLY) if kind == "full" else unread_pipe()
    with os.fdopen(number, "w") as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", gone)
        assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={tmp_path / 'out'}") == cli.OK
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)  # for what is still in its buffer
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_run_whose_terminal_is_closed_or_that_is_terminated_says_so(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def signalled(config: RunConfig, deal: Deal, simulation: str) -> Path:
        path = finished(Path(config.output_dir), status="running")
        signal.raise_signal(number)
        return path

    monkeypatch.setattr(in_process, "run_in_process", signalled)
    out = tmp_path / "out"
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={out}") == code
    summary = read_json(out / "summary.json")
    assert (summary["status"], summary["error"]) == ("failed", "interrupted")
    assert capsys.readouterr().err.endswith("fl-ppae: interrupted\n")


def test_a_signal_that_the_caller_ignores_stays_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under nohup."""

    def signalled(config: RunConfig, deal: Deal, simulation: str) -> Path:
        signal.raise_signal(signal.SIGHUP)
        return finished(Path(config.output_dir))

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(in_process, "run_in_process", signalled)
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={tmp_path / 'out'}") == cli.OK


@pytest.mark.parametrize("name", ["a[b]", "[red]x[bold", "a b", "-", ":smile:", "Universit\xe9"])
def test_a_run_of_any_name_is_shown_by_that_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "home" / "runs" / name)
    for command in (("runs",), ("show", "--", name), ("compare", "--", "a", name), ("report", "--", name)):
        assert run(*command) == cli.OK
        assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-of-that-name", "a/" * 3000, "", "."])
def test_a_name_that_no_run_can_have_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", name) == cli.USER_MISTAKE
    assert capsys.readouterr().err.startswith(f"fl-ppae: no run {name!r}")


def test_a_run_is_found_through_a_link_a_slash_and_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "home" / "runs" / "a"
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder / "..")
    for name in (f"{folder}/", str(tmp_path / "link"), "a/../a", "./a/.", "a/"):
        assert run("show", name) == cli.OK
        assert f"artefacts: {folder}\n" in capsys.readouterr().out.replace("\n/", "/")


def test_a_report_that_can_not_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fl_ppae.reporting import run_report

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(run_report, "write_page", refuse)
    path = tmp_path / "home" / "runs" / "a" / "report.html"
    assert run("report", "a") == cli.USER_MISTAKE
    assert capsys.readouterr().err == f"fl-ppae: {path}: Permission denied\n"
