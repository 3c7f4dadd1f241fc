"""A disk that is full when a run fails: the cause in one line, and no traceback in its place."""

import errno
from pathlib import Path

import pytest
from commands.command_line import STAND_IN
from commands.command_line import run as fl_ppae

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.files import write_atomically, write_json
from fl_ppae.runs.status import cause_of, mark_failed
from fl_ppae.simulation import in_process


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_names_its_file_and_leaves_it_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    monkeypatch.setattr("fl_ppae.files.os.fsync", full)
    with pytest.raises(OSError, match="No space") as failure:
        write_atomically(path, b"2")
    assert failure.value.filename == str(path)
    assert cause_of(failure.value) == f"{path}: No space left on device"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("1\n", [path])


def test_a_run_that_can_not_be_marked_as_failed_keeps_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "summary.json", {"status": "running"})
    monkeypatch.setattr("fl_ppae.files.os.fsync", full)
    assert mark_failed(tmp_path, "the cause") == "the cause"


def test_a_full_disk_ends_a_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def fails(config: RunConfig, _deal: Deal, _simulation: str) -> Path:
        out.mkdir()
        monkeypatch.setattr("fl_ppae.files.os.fsync", full)
        monkeypatch.setattr(Path, "write_text", full)
        write_json(out / "checkpoint", {})
        raise AssertionError("written")

    monkeypatch.setattr(in_process, "run_in_process", fails)
    assert fl_ppae("run", *STAND_IN, "--in-process", "-c", f"output-dir={out}") == cli.RUN_FAILED
    told = capfd.readouterr().err
    assert told.splitlines()[-1] == f"fl-ppae: run failed: {out / 'checkpoint'}: No space left on device"
    assert "Traceback" not in told
