"""What a hospital's disk holds, and what it refuses when part of it is gone."""

import copy
import errno
import fcntl
import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fl_ppae.errors import UserError
from fl_ppae.hospital import state as hospital_state
from fl_ppae.hospital.state import HospitalState, TrainingState
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.terms import Terms

TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[HospitalState]:
    """A hospital's state, with its lock held."""
    state = HospitalState(tmp_path / "state")
    with state.lock():
        yield state


def trained(state: HospitalState, rounds: int, terms: Terms = TERMS) -> TrainingState:
    """A hospital after `rounds` rounds."""
    ledger = state.open_ledger(terms)
    for number in range(1, rounds + 1):
        ledger = ledger.announce(PoissonGaussian(1.5, 0.25, 4, number))
    weights = {"0.weight": torch.arange(6.0).reshape(2, 3)}
    training = TrainingState(terms.run, rounds, weights, copy.deepcopy(weights), {})
    state.save_training(training)
    return training


def test_training_comes_back_as_it_was_saved(state: HospitalState) -> None:
    assert state.load_training() is None
    saved = trained(state, 2)
    loaded = state.load_training()
    assert loaded is not None
    assert (loaded.run, loaded.round) == ("run-a", 2)
    assert torch.equal(loaded.encoder["0.weight"], saved.encoder["0.weight"])


def test_the_optimisers_moments_come_back(state: HospitalState) -> None:
    moments = {"0.0.step": torch.tensor(3.0), "0.0.exp_avg": torch.randn(3, 4).T}
    state.save_training(TrainingState("run-a", 1, {}, {}, moments))
    loaded = state.load_training()
    assert loaded is not None
    assert loaded.moments.keys() == moments.keys()
    assert all(torch.equal(loaded.moments[name], value) for name, value in moments.items())


def test_a_missing_ledger_is_refused_once_there_was_training(state: HospitalState) -> None:
    trained(state, 1)
    state.ledger_path.unlink()
    with pytest.raises(UserError, match="is missing although it had 2 lines"):
        state.open_ledger(TERMS)
    assert not state.ledger_path.exists(), "it is not restarted at zero"


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_complete_last_lines_that_are_gone_are_noticed(state: HospitalState, kept: int) -> None:
    trained(state, 3)
    lines = state.ledger_path.read_bytes().splitlines(keepends=True)
    state.ledger_path.write_bytes(b"".join(lines[:kept]))
    with pytest.raises(UserError, match="has lost events"):
        state.open_ledger(TERMS)
    with pytest.raises(UserError, match="has lost events"):
        state.open_ledger(replace(TERMS, run="run-b"))


def test_a_crash_between_ledger_and_training_over_states(state: HospitalState) -> None:
    trained(state, 1)
    state.open_ledger(TERMS).announce(PoissonGaussian(1.5, 0.25, 4, 2))
    assert len(state.open_ledger(TERMS).events) == 2


def test_a_crash_while_training_is_saved_keeps_the_old_one(
    state: HospitalState, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trained(state, 1)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        state.save_training(replace(training, round=2))
    loaded = state.load_training()
    assert loaded is not None
    assert loaded.round == 1
    names = {file.name for file in state.directory.iterdir() if not file.name.endswith(".lock")}
    assert names == {"ledger.jsonl", "counter.json", "training.safetensors"}


def test_terms_are_remembered_for_their_run_only(state: HospitalState) -> None:
    assert state.agreed_terms("run-a") is None
    state.open_ledger(TERMS)
    assert state.agreed_terms("run-a") == TERMS
    assert state.agreed_terms("run-b") is None


def test_a_release_is_kept_by_run_and_part(state: HospitalState) -> None:
    encodings = np.arange(6, dtype=np.float32).reshape(2, 3)
    labels = np.array([3, 1])
    state.save_release("run-a", "train", encodings, labels)
    assert np.array_equal(np.load(state.release_path("run-a", "train")), encodings)
    assert np.array_equal(np.load(state.label_path("run-a", "train")), labels)
    assert not state.release_path("run-a", "test").exists()
    assert not state.release_path("run-b", "train").exists()


def test_training_is_loaded_without_running_code(state: HospitalState, tmp_path: Path) -> None:
    torch.save({"anything": hospital_state.HospitalState(tmp_path)}, tmp_path / "pickled.pt")
    state.training_path.write_bytes((tmp_path / "pickled.pt").read_bytes())
    with pytest.raises(UserError, match="is damaged"):
        state.load_training()
    with pytest.raises(UserError, match="is damaged"):
        state.open_ledger(TERMS)


def test_what_a_training_from_before_counters_had_paid_still_counts(state: HospitalState) -> None:
    written = json.dumps({"run": "run-a", "round": 1, "paid": 1})
    save_file({"encoder/0.weight": torch.zeros(2)}, state.training_path, {"written": written})
    with pytest.raises(UserError, match="missing although its hospital has trained"):
        state.open_ledger(TERMS)


def test_nothing_that_is_read_and_changed_is_touched_without_the_lock(tmp_path: Path) -> None:
    state = HospitalState(tmp_path / "state")
    changes: list[Callable[[], object]] = [
        lambda: state.open_ledger(TERMS),
        lambda: state.save_training(TrainingState("run-a", 1, {}, {}, {})),
        lambda: state.save_release("run-a", "train", np.zeros((1, 2), np.float32), None),
    ]
    for change in changes:
        with pytest.raises(RuntimeError, match="without its lock"):
            change()
        with state.lock():
            change()


def test_the_lock_keeps_another_process_out(state: HospitalState) -> None:
    fork = multiprocessing.get_context("fork")
    tried = fork.Queue()
    other = fork.Process(target=lambda: tried.put(_free(state.directory / ".lock")))
    other.start()
    other.join(timeout=20)
    assert tried.get(timeout=20) is False


def _free(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(UserError, match="can't be locked"), HospitalState(tmp_path).lock():
        pass
