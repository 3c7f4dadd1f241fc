"""Any accident to a run's files: the run is shown, goes on, or is refused in one line."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fuzz.cases import damaged, junk, refused_in_one_line, tiers, tried
from hypothesis import strategies as st
from privacy.oracles import oracle
from support import SMALL, quick_runs, simulated_nodes, without_pages, write_npz

from fl_ppae import client_app, server_app
from fl_ppae.config import RunConfig
from fl_ppae.files import read_json
from fl_ppae.hospital.updates import LocalRound
from fl_ppae.reporting.comparison import comparison_tables
from fl_ppae.reporting.tables import run_tables
from fl_ppae.runs.checkpoint import FILE, Checkpoint, read_checkpoint, write_checkpoint
from fl_ppae.runs.comparison import compare
from fl_ppae.runs.resuming import find_interrupted, reopen
from fl_ppae.runs.stopping import tell_to_stop
from fl_ppae.runs.stored import open_run
from fl_ppae.simulation.in_process import InProcessGrid

pytestmark = pytest.mark.xdist_group("fuzzed runs")

TABLES = ["config.json", "summary.json", "ledger.json", "rounds.csv", "hospitals.csv", "timing.csv"]
KEYS = {**SMALL, "num-server-rounds": 2, "checkpoint-every": 1}


class Stopping(InProcessGrid):
    """A grid on which the run ends after its first round."""

    def send_and_receive(self, *arguments: Any, **named: Any) -> Any:
        tell_to_stop(self.where)
        return super().send_and_receive(*arguments, **named)

    where: Path


def federate(grid: type[InProcessGrid], **keys: Any) -> Path:
    config = RunConfig.from_flat({**KEYS, **keys})
    hospitals = grid(client_app.app, config.to_flat(), simulated_nodes(2))
    return server_app.serve(hospitals, config, "tiny")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that stopped after round 1 of 2."""
    folder = tmp_path_factory.mktemp("interrupted")
    Stopping.where = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_PPAE_HOME", str(folder / "home"))
        quick_runs(patch)
        without_pages(patch)
        data = write_npz(folder / "tiny.npz", 200)
        yield federate(Stopping, **{"data-file": str(data), "output-dir": str(folder / "run")})


@pytest.fixture
def run(interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    monkeypatch.setenv("FL_PPAE_HOME", str(interrupted.parent / "home"))
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def documents(content: bytes) -> st.SearchStrategy[bytes]:
    """A JSON document with something else at one of its places, two levels deep."""
    sound = json.loads(content)
    places = [(key,) for key in sound]
    places += [(key, inner) for key, value in sound.items() if isinstance(value, dict) for inner in value]

    def changed(given: tuple[tuple[str, ...], Any]) -> bytes:
        place, value = given
        document = json.loads(content)
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        return json.dumps(document).encode()

    return st.tuples(st.sampled_from(places), junk()).map(changed)


@pytest.mark.parametrize("name", TABLES)
@tiers(short=10, long=350)
def test_a_run_with_a_damaged_file_is_shown_or_refused(name: str, cases: int, run: Path) -> None:
    content = (run / name).read_bytes()
    contents = damaged(content) | st.binary(max_size=60)

    def check(changed: bytes) -> None:
        (run / name).write_bytes(changed)
        shown = open_run(run)
        refused_in_one_line(lambda: run_tables(shown))
        refused_in_one_line(
            lambda: comparison_tables([one := shown, one]) if compare([shown, shown]) else None
        )
        refused_in_one_line(lambda: reopen(find_interrupted(str(run))))

    tried(cases, contents | documents(content) if name.endswith("json") else contents, check)


@tiers(short=40, long=800)
def test_a_damaged_checkpoint_is_the_one_that_was_written_or_refused(cases: int, run: Path) -> None:
    kept, content = read_checkpoint(run), (run / FILE).read_bytes()

    def check(changed: bytes) -> None:
        (run / FILE).write_bytes(changed)
        refused_in_one_line(lambda: _is_the_same(read_checkpoint(run), kept))

    tried(cases, damaged(content), check)


def _is_the_same(found: Checkpoint, kept: Checkpoint) -> None:
    assert (found.run, found.round, found.state) == (kept.run, kept.round, kept.state)
    assert all((found.arrays[name] == array).all() for name, array in kept.arrays.items())


@tiers(long=250)
def test_a_run_goes_on_from_any_damage_with_all_that_was_paid_or_not_at_all(
    cases: int, interrupted: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every file that going on reads, the hospitals' included; also a checkpoint of any state."""
    files = [path.relative_to(interrupted) for path in sorted(interrupted.rglob("*")) if path.is_file()]
    kept = read_checkpoint(interrupted)
    trained: Counter[str] = Counter()
    update, ends = client_app.make_update, {"went on": 0, "refused": 0, "failed": 0}

    def counted(asked: LocalRound, *arguments: Any) -> Any:
        trained[asked.hospital.identity.name] += 1
        return update(asked, *arguments)

    monkeypatch.setattr(client_app, "make_update", counted)

    def accident(name: Path) -> st.SearchStrategy[tuple[Path, bytes | None]]:
        content = (interrupted / name).read_bytes()
        contents = damaged(content) | (documents(content) if name.suffix == ".json" else st.nothing())
        return (st.none() | contents).map(lambda changed: (name, changed))

    def go_on() -> None:
        federate(InProcessGrid, **{"data-file": str(interrupted.parent / "tiny.npz"), "resume": str(run)})

    def check(given: tuple[Path, bytes | None] | dict[str, Any]) -> None:
        shutil.rmtree(run)
        shutil.copytree(interrupted, run)
        if isinstance(given, dict):
            write_checkpoint(run, Checkpoint(kept.run, kept.round, kept.arrays, {**kept.state, **given}))
        else:
            name, content = given
            (run / name).unlink() if content is None else (run / name).write_bytes(content)
        trained.clear()
        try:
            if refused_in_one_line(go_on):
                ends["refused"] += 1
                return
        except RuntimeError as failure:  # no hospital could train: the run failed, and says why
            assert "no hospital trained in any round" in str(failure)
            ends["failed"] += 1
            return
        ends["went on"] += 1
        epsilons = read_json(run / "summary.json")["epsilon"]
        for hospital in ("hospital-0", "hospital-1"):
            rounds = 1 + trained[hospital]
            assert epsilons[hospital] >= truth(rounds) - 1e-3, (hospital, rounds)

    states = st.dictionaries(st.sampled_from([*kept.state, "more"]), junk(), min_size=1, max_size=2)
    tried(cases, st.sampled_from(files).flatmap(accident) | states, check)
    print(ends)
    assert min(ends["went on"], ends["refused"]) > cases / 20


@cache
def truth(rounds: int) -> float:
    """Epsilon of so many rounds of one of these hospitals, by dp-accounting."""
    return oracle([(1.5, 25 / 90, 4 * rounds)], SMALL["target-delta"])
