"""Two processes pay at once on one ledger and are killed at random: what they drew is in the ledger."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.ledger import read_ledger


def race(folder: Path, kills: int, seed: int, lock: str = "locked") -> Any:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    driver = [sys.executable, "-W", "ignore", str(tests / "hospital" / "race_driver.py")]
    done = subprocess.run(
        [*driver, str(folder), str(kills), str(seed), lock],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def check(found: list[dict[str, int]], folder: Path) -> None:
    paid = [one["paid"] for one in found]
    assert all(one["signal"] == 9 for one in found), "a payer ended by itself"
    assert all(one["paid"] >= one["drawn"] for one in found), "something was drawn that is not in the ledger"
    assert paid == sorted(paid), "something that was paid is forgotten"
    assert paid[-1] <= found[-1]["drawn"] + 2 * len(found), "a kill costs a payment, and perhaps a torn line"
    truth = [PoissonGaussian(1.5, 0.25, 4 * found[-1]["drawn"], 1)]
    events = read_ledger(folder / "state" / "ledger.jsonl").events
    assert all(isinstance(event, PoissonGaussian) for event in events)
    assert epsilon(events, 1e-3).spent >= epsilon(truth, 1e-3).spent  # type: ignore[arg-type]


def test_nothing_is_lost_when_two_processes_pay_at_once_and_are_killed(tmp_path: Path) -> None:
    check(race(tmp_path, 15, seed=1), tmp_path)


@pytest.mark.long
def test_nothing_is_lost_over_two_hundred_kills(tmp_path: Path) -> None:
    found = race(tmp_path, 200, seed=2)
    print(f"{found[-1]['drawn']} draws, {found[-1]['paid']} payments in the ledger")
    check(found, tmp_path)
    assert found[-1]["paid"] > found[-1]["drawn"], "no kill came between payment and draw: they prove little"


def test_processes_that_ignore_the_lock_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    """The control: the two do disturb each other, and it is the lock that keeps them apart."""
    found = race(tmp_path, 0, seed=0, lock="unlocked")
    assert found["exit"] == 3, "refused"
    assert found["paid"] is None or found["paid"] >= found["drawn"], "unreadable, so refused, or complete"
