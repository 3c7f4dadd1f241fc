"""A kill -9 anywhere between "asked" and "replied" never lowers what a hospital's ledger says is spent."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("crashes")

POINTS = 60
DRAWN = {"steps": "n", "encodings": "e", "labels": "l"}


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("crashes")
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "FL_PPAE_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
    }
    driver = [
        sys.executable,
        "-W",
        "ignore",
        str(tests / "hospital" / "crash_driver.py"),
        str(folder),
        str(POINTS),
        "7",
    ]
    done = subprocess.run(driver, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_at_least_fifty_rounds_and_some_uploads_were_killed_before_they_replied(
    crashes: list[dict[str, Any]],
) -> None:
    for kind, least in (("train", 50), ("upload", 10)):
        killed = [one for one in crashes if one["kind"] == kind and "r" not in one["marks"]]
        assert len(killed) >= least
        assert len({tuple(one["point"]) for one in killed}) > 0.9 * len(killed)
        drawn = sum(bool(one["marks"]) for one in killed)
        assert 0 < drawn < len(killed), "before the noise and after it"


def test_everything_drawn_is_paid_for_and_nothing_paid_is_forgotten(crashes: list[dict[str, Any]]) -> None:
    for one in crashes:
        for what, mark in DRAWN.items():
            rise = one["after"][what] - one["before"][what]
            assert rise >= one["marks"].count(mark), one


def test_a_crash_can_only_overstate_and_sometimes_does(crashes: list[dict[str, Any]]) -> None:
    overstated = [
        one
        for one in crashes
        if one["after"]["steps"] - one["before"]["steps"] > one["marks"].count(DRAWN["steps"])
    ]
    assert overstated, "no point lay between payment and the last noise: the points prove little"


def test_a_ledger_is_the_same_however_often_it_is_read(crashes: list[dict[str, Any]]) -> None:
    assert all(one["again"] == one["after"] for one in crashes)


def test_a_hospital_that_was_killed_answers_again_and_releases_its_encodings_once(
    crashes: list[dict[str, Any]],
) -> None:
    answered = [one for one in crashes if one["kind"] == "upload again"]
    assert {one["marks"][-1] for one in answered} <= {"r", "d"}
    for one in answered:
        assert one["after"]["encodings"] == one["after"]["labels"] == 1, one
        assert (one["marks"] == "d") == (one["before"]["encodings"] == 1 and "r" not in one["marks"]), one
    trained = [one for one in crashes if one["kind"] == "train" and one["point"] is None]
    assert all(one["marks"] == "nnr" for one in trained)
