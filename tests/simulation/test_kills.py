"""A run that is killed with SIGKILL, or whose disk fails, at whatever moment, goes on to a right end.

The truth is what each process noted just before it drew (`kill_driver.take_notes`), over all processes of a
case, rounds that were drawn twice included; its epsilon is dp-accounting's.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from privacy.oracles import oracle
from simulation.kill_driver import COMMON, KINDS, ROUNDS

from fl_ppae.files import read_json
from fl_ppae.privacy.events import Gaussian, PoissonGaussian, RandomisedResponse
from fl_ppae.privacy.ledger import read_ledger

pytestmark = pytest.mark.xdist_group("kills")

RECORDS = 100  # of each hospital
NORM = 1e-3  # max-grad-norm
EPSILONS = ("epsilon", "epsilon_max")
BYTE_FOR_BYTE = ("rounds.csv", "hospitals.csv", "ledger.json")


@dataclass(frozen=True)
class Drawn:
    """What one hospital drew: noised sums by noise multiplier, releases, and the streams of its noise."""

    sums: Counter[float]
    encodings: int
    labels: int
    streams: list[int]


def drawn(folder: Path, hospital: int) -> Drawn:
    notes = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    own = [(what, value) for index, what, value in notes if index == hospital]
    return Drawn(
        Counter(round(value / NORM, 9) for what, value in own if what == "sums"),
        sum(what == "encodings" for what, _ in own),
        sum(what == "labels" for what, _ in own),
        [value for what, value in own if what == "stream"],
    )


@cache
def epsilon_of(parts: tuple[tuple[float, float, int], ...]) -> float:
    """By dp-accounting, for (noise multiplier, sample rate, steps)."""
    return oracle(parts, COMMON["target-delta"])


def rows(run: Path, table: str) -> list[dict[str, str]]:
    with (run / table).open(newline="") as file:
        return list(csv.DictReader(file))


def without_epsilon(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if key not in EPSILONS}


def check_nothing_drawn_is_unpaid(case: dict[str, Any]) -> None:
    """Neither in the hospitals' ledgers, nor in the epsilons of the run's summary and tables."""
    run, kind = Path(case["run"]), KINDS[case["kind"]]
    rate = kind.get("sample-rate") or COMMON["batch-size"] / RECORDS
    stated = read_json(run / "summary.json")["epsilon"]
    truths = []
    for hospital in range(3):
        truth = drawn(Path(case["folder"]), hospital)
        assert len(truth.streams) == len({*truth.streams}), "one stream's noise, in two processes"
        events = read_ledger(run / "hospitals" / f"hospital-{hospital}" / "ledger.jsonl").events
        paid = Counter[float]()
        for event in events:
            if isinstance(event, PoissonGaussian):
                assert event.sample_rate == rate
                paid[round(event.noise_multiplier, 9)] += event.steps
        assert all(paid[sigma] >= steps for sigma, steps in truth.sums.items()), (paid, truth)
        assert sum(isinstance(event, Gaussian) for event in events) >= truth.encodings
        assert sum(isinstance(event, RandomisedResponse) for event in events) >= truth.labels
        truths.append(epsilon_of(tuple((sigma, rate, steps) for sigma, steps in truth.sums.items())))
        assert stated[f"hospital-{hospital}"] >= truths[-1] - 1e-3, "below the truth"
    assert float(rows(run, "rounds.csv")[-1]["epsilon_max"]) >= max(truths) - 1e-3


def check_tables(case: dict[str, Any], whole: Path) -> str:
    """Against those of the undisturbed run; returns how much was to agree.

    A kill between rounds: the same bytes. A kill in a round, after which no hospital drew twice: the same
    but for epsilons, which may be there earlier, because they count what was paid before the kill. Else: the
    same up to the round that was drawn twice, and from it on whatever does not depend on noise. A masked
    round that was interrupted is lost: nobody trained in it, and it is charged.
    """
    run = Path(case["run"])
    twice = read_json(run / "summary.json").get("rounds_paid_twice", {})
    agreed = [(run / table).read_bytes() == (whole / table).read_bytes() for table in BYTE_FOR_BYTE]
    if case["between_rounds"]:
        assert all(agreed), BYTE_FOR_BYTE
        return "same bytes"
    found, expected = rows(run, "rounds.csv"), rows(whole, "rounds.csv")
    assert [row["round"] for row in found] == [str(number) for number in range(1, ROUNDS + 1)]
    for one, other in zip(found, expected, strict=True):
        assert float(one["epsilon_max"]) >= float(other["epsilon_max"])
    lost = {row["round"] for row in found if row["hospitals_trained"] != "3"}
    assert not lost or case["kind"] == "masked"
    hospitals = {(row["round"], row["hospital"]): row for row in rows(run, "hospitals.csv")}
    planned = {(row["round"], row["hospital"]): row for row in rows(whole, "hospitals.csv")}
    assert hospitals.keys() == planned.keys()
    for place, row in planned.items():
        assert float(hospitals[place]["epsilon"]) >= float(row["epsilon"])
        if place[0] in lost:
            assert hospitals[place]["status"] == "failed"
        else:
            assert without_epsilon(hospitals[place]) == without_epsilon(row)
    if not lost and not any(twice.values()):
        assert [without_epsilon(row) for row in found] == [without_epsilon(row) for row in expected]
        return "same but for earlier epsilons"
    changed = min([int(one) for one in lost] + first_drawn_twice(run))
    for one, other in zip(found[: changed - 1], expected, strict=False):
        assert without_epsilon(one) == without_epsilon(other)
    return "same up to the repeated round"


def first_drawn_twice(run: Path) -> list[int]:
    """The first round that some hospital has paid for twice; empty if none has."""
    ledgers = [read_ledger(path).events for path in run.glob("hospitals/*/ledger.jsonl")]
    paid = [
        Counter(event.round for event in events if isinstance(event, PoissonGaussian)) for events in ledgers
    ]
    repeated = [number for counts in paid for number, times in counts.items() if times > 1]
    return [min(repeated)] if repeated else []


def disturbed(folder: Path, mode: str, cases: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """The disturbed runs, and the undisturbed ones by kind."""
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "FL_PPAE_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
    }
    driver = str(tests / "simulation" / "kill_driver.py")
    command = [sys.executable, "-W", "ignore", driver, str(folder), mode, str(cases), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=7200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    return [one for one in found if one["ends"]], {
        one["kind"]: Path(one["run"]) for one in found if not one["ends"]
    }


@pytest.mark.parametrize(
    ("cases", "seed"),
    [pytest.param(10, 1, marks=pytest.mark.slow), pytest.param(100, 20, marks=pytest.mark.long)],
)
def test_a_run_that_is_killed_at_any_moment_goes_on_to_a_right_end(
    cases: int, seed: int, tmp_path: Path
) -> None:
    found, wholes = disturbed(tmp_path, "kills", cases, seed)
    assert len(found) == cases
    agreement: Counter[str] = Counter()
    for case in found:
        assert read_json(Path(case["run"]) / "summary.json")["status"] == "completed"
        check_nothing_drawn_is_unpaid(case)
        agreement[check_tables(case, wholes[case["kind"]])] += 1
    kills = sum(end == "killed" for case in found for end in case["ends"])
    went_on = sum(bool(case["resumed"]) for case in found)
    repeats = sum(
        sum(read_json(Path(case["run"]) / "summary.json").get("rounds_paid_twice", {}).values())
        for case in found
    )
    print(f"seed {seed}: {kills} kills of {cases} runs, {went_on} went on from a checkpoint, {agreement}, ")
    print(f"{repeats} hospitals' rounds drawn twice")
    assert kills >= 0.8 * cases
    assert went_on >= 0.6 * cases
    assert len(agreement) == 3
    assert repeats
    check_that_the_checks_can_fail(found, wholes)


@pytest.mark.parametrize(
    ("cases", "seed"),
    [pytest.param(10, 2, marks=pytest.mark.slow), pytest.param(100, 21, marks=pytest.mark.long)],
)
def test_a_run_whose_disk_fails_at_any_moment_goes_on_to_a_right_end(
    cases: int, seed: int, tmp_path: Path
) -> None:
    """Full, read-only or broken, for one operation, a few, or until the run ends, with half-written files.

    A hospital whose disk fails is left out of the round, with the reason; the server's failure ends the run.
    """
    found, wholes = disturbed(tmp_path, "disk", cases, seed)
    assert len(found) == cases
    endings: Counter[str] = Counter()
    left_out = 0
    for case in found:
        run = Path(case["run"])
        assert read_json(run / "summary.json")["status"] == "completed"
        check_nothing_drawn_is_unpaid(case)
        assert [row["round"] for row in rows(run, "rounds.csv")] == [str(n) for n in range(1, ROUNDS + 1)]
        planned = {(row["round"], row["hospital"]) for row in rows(wholes[case["kind"]], "hospitals.csv")}
        every = rows(run, "hospitals.csv")
        assert {(row["round"], row["hospital"]) for row in every} <= planned
        failed = [row for row in every if row["status"] != "trained"]
        assert all(row["reason"] for row in failed)
        left_out += len(failed)
        endings.update(end.split(": ")[0] for end in case["ends"])
    print(
        f"seed {seed}: {cases} runs, their processes ended {endings}, {left_out} hospitals' rounds left out"
    )
    assert endings["failed"] >= cases / 4
    assert left_out


def check_that_the_checks_can_fail(found: list[dict[str, Any]], wholes: dict[str, Path]) -> None:
    """On runs with one unpaid round, and with one changed row."""
    exact = next(case for case in found if case["kind"] == "updates" and case["between_rounds"])
    journal = Path(exact["folder"]) / "journal"
    with journal.open("a") as file:
        file.write(4 * f'[0, "sums", {NORM * COMMON["noise-multiplier"]}]\n')
    with pytest.raises(AssertionError):
        check_nothing_drawn_is_unpaid(exact)
    copy = shutil.copytree(exact["run"], Path(exact["folder"]) / "copy")
    table = copy / "rounds.csv"
    table.write_text(table.read_text().replace("\n2,3,", "\n2,2,"))
    for between in (True, False):
        with pytest.raises(AssertionError):
            check_tables({**exact, "run": str(copy), "between_rounds": between}, wholes["updates"])
