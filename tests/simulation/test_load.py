"""Many rounds of many hospitals, of whose replies one in ten fails: no payment is lost, and nothing is left.

Which replies fail, and whether before or after the hospital paid, is drawn in `load_app.fate`; that is the
truth that ledgers and tables are compared with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from simulation.load_app import AFTER, ANSWERS, BEFORE, fate
from support import Run

from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import updates
from fl_ppae.privacy.ledger import read_ledger

pytestmark = pytest.mark.xdist_group("superlink")


def played(folder: Path, hospitals: int, rounds: int, kind: str) -> dict[str, Any]:
    """What the driver reports of a run in FOLDER/run."""
    tests = Path(__file__).resolve().parents[1]
    where = {"PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    driver = str(tests / "simulation" / "load_driver.py")
    command = [sys.executable, "-W", "ignore", driver, str(folder), str(hospitals), str(rounds), kind]
    done = subprocess.run(
        command, env={**os.environ, **where}, capture_output=True, text=True, timeout=14_400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check_payments(path: Path, hospitals: int, rounds: int) -> None:
    """Check that every ledger holds what its hospital paid, and the server's nothing less."""
    run, numbers = Run(path), range(1, rounds + 1)
    status = {(row["hospital"], int(row["round"])): row["status"] for row in run.rows("hospitals.csv")}
    for index in range(hospitals):
        name = f"hospital-{index}"
        fates = {number: fate(number, index) for number in numbers}
        paid = read_ledger(path / "hospitals" / name / "ledger.jsonl").events
        assert [event.round for event in paid] == [one for one in numbers if fates[one] != BEFORE], name
        account = run.ledger["hospitals"][name]
        assert [event["round"] for event in account["events"]] == list(numbers), "failures stay charged"
        spent = max(account["epsilon"]["prv"], account["epsilon"]["pld"])
        assert spent >= epsilon(updates(paid), run.ledger["delta"]).spent
        for number, one in fates.items():
            assert status[name, number] == ("trained" if one == ANSWERS else "failed")
    trained = [int(row["hospitals_trained"]) for row in run.rows("rounds.csv")]
    assert trained == [sum(fate(one, index) == ANSWERS for index in range(hospitals)) for one in numbers]
    assert run.summary["status"] == "completed"


def check_that_nothing_is_left(found: dict[str, Any], kind: str) -> None:
    assert found["left"] == found["folders left"] == found["ports left"] == []
    if kind == "ray":
        assert found["started"] > 5 and found["ports"] > 0, "the control"


def check_that_the_check_can_fail(path: Path, hospitals: int, rounds: int) -> None:
    """On a ledger that lost its last line."""
    copy = shutil.copytree(path, path.with_name("copy"))
    ledger = copy / "hospitals" / "hospital-0" / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(AssertionError):
        check_payments(copy, hospitals, rounds)


def test_replies_fail_before_and_after_payment_in_every_run_that_is_tested() -> None:
    drawn = [fate(number, index) for number in range(1, 11) for index in range(5)]
    assert {BEFORE, AFTER, ANSWERS} == set(drawn)
    many = [fate(number, index) for number in range(1, 201) for index in range(50)]
    assert 0.09 < 1 - many.count(ANSWERS) / len(many) < 0.11


def check_that_memory_is_flat(megabytes: list[float]) -> None:
    """After the first tenth, which fills caches, less than a tenth more by the end."""
    few = len(megabytes) // 4
    early, late = megabytes[few // 5 : few + few // 5], megabytes[-few:]
    assert median(late) < 1.1 * median(early)


@pytest.mark.parametrize(
    ("hospitals", "rounds"),
    [
        pytest.param(5, 10, marks=pytest.mark.slow),
        pytest.param(50, 200, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("kind", ["process", "ray"])
def test_a_run_in_which_replies_fail_loses_no_payment_and_leaves_nothing(
    tmp_path: Path, kind: str, hospitals: int, rounds: int
) -> None:
    found = played(tmp_path, hospitals, rounds, kind)
    check_payments(tmp_path / "run", hospitals, rounds)
    check_that_nothing_is_left(found, kind)
    check_that_memory_is_flat(found["megabytes"])
    check_that_the_check_can_fail(tmp_path / "run", hospitals, rounds)
