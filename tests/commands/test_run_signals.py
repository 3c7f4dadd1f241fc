"""The first signal lets a run end after its round, the second ends it at once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands.command_line import STAND_IN, finished, run

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.files import read_json, write_json
from fl_ppae.runs.stopping import is_told_to_stop
from fl_ppae.simulation import in_process

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("phase", ["training, asking", "evaluating, encoding images"])
def test_one_signal_lets_the_round_end_and_says_how_to_go_on(
    number: signal.Signals,
    phase: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def signalled(config: RunConfig, deal: Deal, simulation: str) -> Path:
        path = finished(Path(config.output_dir), status="running", phase=phase)
        signal.raise_signal(number)
        assert is_told_to_stop(path)
        summary = {**read_json(path / "summary.json"), "status": "interrupted", "error": "after round 1 of 2"}
        write_json(path / "summary.json", summary)
        return path

    monkeypatch.setattr(in_process, "run_in_process", signalled)
    out = tmp_path / "out"
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={out}") == CODES[number]
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"fl-ppae: interrupted: after round 1 of 2; go on with: fl-ppae run --resume {out}"


@pytest.mark.parametrize("number", CODES)
def test_the_second_signal_ends_the_run_at_once(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(config: RunConfig, deal: Deal, simulation: str) -> Path:
        finished(Path(config.output_dir), status="running", phase="training")
        signal.raise_signal(number)
        signal.raise_signal(number)
        raise AssertionError("it went on")

    monkeypatch.setattr(in_process, "run_in_process", signalled)
    out = tmp_path / "out"
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={out}") == CODES[number]
    assert read_json(out / "summary.json")["error"] == "interrupted"


def test_outside_its_rounds_a_run_ends_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(config: RunConfig, deal: Deal, simulation: str) -> Path:
        finished(Path(config.output_dir), status="running", phase="baselines")
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(in_process, "run_in_process", signalled)
    assert run("run", *STAND_IN, "--in-process", "-c", f"output-dir={tmp_path / 'out'}") == cli.INTERRUPTED
