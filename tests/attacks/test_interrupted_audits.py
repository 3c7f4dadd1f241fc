"""An audit that is interrupted goes on where it was, and ends with the same results."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks.audits import CHEAP, audited
from support import Run

from fl_ppae import cli
from fl_ppae.attacks import registry
from fl_ppae.attacks.attack import Attack, Findings

UNFINISHED = "audit/unfinished"
QUICKEST = "similarity,retrieval,dependence"


def without_time(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in ("seconds", "run_directory")}


def counted(patch: pytest.MonkeyPatch, dies_at: int | None = None) -> list[str]:
    """Note which attacks are run; the one of this number is interrupted."""
    ran: list[str] = []

    def noted(attack: Attack) -> Attack:
        def run(*arguments: Any) -> Findings:
            ran.append(attack.name)
            if len(ran) == dies_at:
                raise KeyboardInterrupt
            return attack.run(*arguments)

        return dataclasses.replace(attack, run=run)

    patch.setattr(registry, "ATTACKS", tuple(noted(attack) for attack in registry.ATTACKS))
    return ran


def test_an_interrupted_audit_goes_on_with_the_attacks_that_are_left(
    federate: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federate("run", share="updates+encodings")
    whole = Run(Path(shutil.copytree(run.path, tmp_path / "whole")))
    expected = audited(whole, "--attacks", QUICKEST)
    assert not (whole.path / UNFINISHED).exists()
    names = QUICKEST.split(",")
    with monkeypatch.context() as patch:
        assert counted(patch, dies_at=3) != names
        assert cli.main(["audit", str(run.path), "--quick", "--attacks", QUICKEST]) == cli.INTERRUPTED
    assert not (run.path / "audit" / "results.json").exists()
    with monkeypatch.context() as patch:
        ran = counted(patch)
        found = audited(run, "--attacks", QUICKEST)
    assert ran == names[2:]
    assert without_time(found) == without_time(expected)
    assert not (run.path / UNFINISHED).exists()
    tables = [(one.path / "audit" / "results.csv").read_bytes() for one in (run, whole)]
    assert tables[0] == tables[1]


def test_what_another_audit_found_is_not_taken_over(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another effort, of the run as it was before, or damaged: it is measured again."""
    run = federate("run", share="updates")
    attacks = ["--attacks", "similarity,dependence"]

    def interrupted() -> None:
        with monkeypatch.context() as patch:
            counted(patch, dies_at=2)
            assert cli.main(["audit", str(run.path), "--quick", *attacks]) == cli.INTERRUPTED
        (kept,) = (run.path / UNFINISHED).glob("similarity-*.json")
        changes = json.loads(kept.read_text())
        changes["results"][0]["value"] = 7.0
        kept.write_text(json.dumps(changes))

    def measured(*options: str) -> float:
        with monkeypatch.context() as patch:
            ran = counted(patch)
            value = audited(run, *attacks, *options)["results"][0]["value"]
        assert (value == 7.0) == ("similarity" not in ran)
        return float(value)

    interrupted()
    assert measured() == 7.0, "control: what is kept is what is shown"
    interrupted()
    assert measured("--shadows", "2") != 7.0
    interrupted()
    summary = run.path / "summary.json"
    summary.write_text(summary.read_text() + "\n")
    assert measured() != 7.0
    interrupted()
    (kept,) = (run.path / UNFINISHED).glob("similarity-*.json")
    kept.write_bytes(kept.read_bytes()[:-9])
    assert measured() != 7.0


@pytest.mark.slow
def test_a_killed_audit_ends_with_the_same_table(federate: Callable[..., Run], tmp_path: Path) -> None:
    """SIGKILL as soon as one, two and three attacks are finished."""
    run = federate("run", share="updates+encodings")
    whole = Run(Path(shutil.copytree(run.path, tmp_path / "whole")))
    expected = audited(whole, "--attacks", CHEAP)
    command = [sys.executable, "-m", "fl_ppae.cli", "audit", str(run.path), "--quick", "--attacks", CHEAP]
    for finished in (1, 2, 3):
        process = subprocess.Popen(command, env=dict(os.environ), stdout=-3, stderr=-3)
        while len(list((run.path / UNFINISHED).glob("*.json"))) <= finished and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed before its end"
    found = audited(run, "--attacks", CHEAP)
    assert without_time(found) == without_time(expected)
