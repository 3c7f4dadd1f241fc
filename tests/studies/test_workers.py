import time
from pathlib import Path

from studies.study_jobs import Job, slow, work

from fl_ppae.studies.workers import run_cells


def test_a_cell_that_fails_or_kills_its_process_does_not_affect_the_others(tmp_path: Path) -> None:
    jobs = [Job(name) for name in ("a", "fails", "dies", "b", "c")]
    outcomes = {one.cell.name: one for one in run_cells(jobs, work, 2, tmp_path)}
    assert set(outcomes) == {"a", "fails", "dies", "b", "c"}
    assert outcomes["fails"].error == "ValueError: a reason in two lines"
    assert "process died" in outcomes["dies"].error
    assert [outcomes[name].rows[0]["threads"] for name in "abc"] == ["1", "1", "1"]
    assert "said a" in "".join(path.read_text() for path in tmp_path.glob("*.log"))


def test_an_interrupted_study_stops_its_workers_at_once(tmp_path: Path) -> None:
    outcomes = run_cells([Job("a"), Job("b"), Job("c")], slow, 2, tmp_path)
    next(outcomes)
    start = time.monotonic()
    outcomes.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 30
