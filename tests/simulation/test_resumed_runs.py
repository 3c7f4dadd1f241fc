"""Runs that end early and go on: nothing is lost, nothing is paid for twice unless it was drawn twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from support import Run, simulated_nodes

from fl_ppae.errors import UserError
from fl_ppae.files import read_json, write_json
from fl_ppae.hospital import updates
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.runs.checkpoint import FILE
from fl_ppae.runs.stopping import tell_to_stop
from fl_ppae.simulation.in_process import InProcessGrid

ROUNDS = {"num_server_rounds": 3, "target_epsilon": 50.0, "checkpoint_every": 1}
TABLES = ("rounds.csv", "hospitals.csv", "ledger.json")


class Killed(BaseException):
    """Stands for the end of the server's process."""


def stopping(run_directory: Path, server_round: int) -> type[InProcessGrid]:
    """A grid on which the run is told to stop while this round is under way."""

    class Stopping(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            if asks_for(message, server_round):
                tell_to_stop(run_directory)
            return super()._deliver(message)

    return Stopping


def killing(hospital: int, server_round: int) -> type[InProcessGrid]:
    """A grid on which the server ends before this hospital is asked for this round."""

    class Killing(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            if asks_for(message, server_round) and message.metadata.dst_node_id == hospital + 2:
                raise Killed
            return super()._deliver(message)

    return Killing


def asks_for(message: Message, server_round: int) -> bool:
    config = message.content.config_records.get("config", {})
    return message.metadata.message_type == "train" and config.get("server-round") == server_round


def killed_in_training(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server and its hospital end in the `number`-th local training, after the hospital has paid."""
    train, calls = updates.train_round, []

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return train(*arguments)

    monkeypatch.setattr(updates, "train_round", killed)


def rounds_paid(run: Path, hospital: int) -> list[int]:
    events = read_ledger(run / "hospitals" / f"hospital-{hospital}" / "ledger.jsonl").events
    return [event.round for event in events]


@pytest.mark.parametrize(
    "changes",
    [
        {"diagnostics": True},
        {"share": "encodings", "evaluate_every": 1},
        {"local_steps": 1, "objective": "task", "sample_rate": 0.2},
    ],
    ids=["updates", "encodings", "one step"],
)
def test_a_run_that_stops_between_rounds_ends_as_if_it_had_not(
    federate: Callable[..., Run], tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = federate("whole", **ROUNDS, **changes)
    stopped = federate("run", grid=stopping(tmp_path / "run", 2), **ROUNDS, **changes)
    assert stopped.summary["status"] == "interrupted"
    assert stopped.summary["error"] == "it was stopped after round 2 of 3"
    assert [row["round"] for row in stopped.rows("rounds.csv")] == ["1", "2"]
    run = federate("run", resume=str(tmp_path / "run"), **ROUNDS, **changes)
    assert run.path == stopped.path
    assert run.summary["status"] == "completed"
    for table in TABLES:
        assert (run.path / table).read_bytes() == (whole.path / table).read_bytes(), table
    for key in ("accuracy", "leakage", "epsilon", "guarantees", "baselines"):
        assert run.summary[key] == whole.summary[key]
    assert not (run.path / FILE).exists()
    assert not list(run.path.glob("hospitals/*/answers"))


@pytest.mark.parametrize("every", [1, 100])
def test_a_reply_that_was_finished_is_sent_again_and_not_paid_again(
    federate: Callable[..., Run], tmp_path: Path, every: int
) -> None:
    """With checkpoints far apart, whole rounds are repeated from the replies that hospitals keep."""
    keys = {**ROUNDS, "checkpoint_every": every}
    whole = federate("whole", **keys)
    with pytest.raises(Killed):
        federate("run", grid=killing(1, server_round=3), **keys)
    assert [rounds_paid(tmp_path / "run", hospital) for hospital in (0, 1)] == [[1, 2, 3], [1, 2]]
    run = federate("run", resume=str(tmp_path / "run"), **keys)
    assert [rounds_paid(run.path, hospital) for hospital in range(3)] == [[1, 2, 3]] * 3
    assert run.summary["rounds_paid_twice"] == dict.fromkeys(run.summary["epsilon"], 0)
    for name in ("ledger.json", "encoder.safetensors"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()
    known = [float(row["epsilon_max"]) for row in run.rows("rounds.csv")]
    true = [float(row["epsilon_max"]) for row in whole.rows("rounds.csv")]
    assert all(one >= other for one, other in zip(known, true, strict=True)), "what was paid counts at once"
    assert known == true or every == 100


def test_a_round_that_was_half_done_is_paid_again_and_the_card_says_so(
    federate: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = federate("whole", **ROUNDS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_in_training(8, patch)  # of hospital-1 in round 3
        federate("run", **ROUNDS)
    run = federate("run", resume=str(tmp_path / "run"), **ROUNDS)
    assert [rounds_paid(run.path, hospital) for hospital in range(3)] == [[1, 2, 3], [1, 2, 3, 3], [1, 2, 3]]
    epsilons = [one.summary["epsilon"]["hospital-1"] for one in (run, whole)]
    assert epsilons[0] > epsilons[1]
    assert run.summary["epsilon"]["hospital-0"] == whole.summary["epsilon"]["hospital-0"]
    before = [one.rows("rounds.csv")[:2] for one in (run, whole)]
    assert before[0] == before[1]
    card = (run.path / "privacy_card.md").read_text()
    assert "interrupted and went on after round 2." in card
    assert "counted twice: hospital-1 1." in card
    assert "interrupted" not in (whole.path / "privacy_card.md").read_text()


@pytest.mark.slow
def test_a_run_that_stops_twice_and_after_its_last_round_goes_on(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    whole = federate("whole", **ROUNDS)
    where = str(tmp_path / "run")
    federate("run", grid=stopping(tmp_path / "run", 1), **ROUNDS)
    federate("run", grid=stopping(tmp_path / "run", 3), resume=where, **ROUNDS)
    run = federate("run", resume=where, **ROUNDS)
    assert run.summary["resumed"] == [1, 3]
    assert run.summary["accuracy"] == whole.summary["accuracy"]
    for table in TABLES:
        assert (run.path / table).read_bytes() == (whole.path / table).read_bytes(), table


@pytest.mark.slow
def test_torn_lines_and_rows_of_unfinished_rounds_are_dropped(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    stopped = federate("run", grid=stopping(tmp_path / "run", 2), **ROUNDS)
    for name, torn in (("rounds.csv", "3,3,0,0,7"), ("hospitals.csv", "3,hos"), ("timing.csv", "trai")):
        with (stopped.path / name).open("a") as file:
            file.write(torn)
    run = federate("run", resume=str(stopped.path), **ROUNDS)
    assert [row["round"] for row in run.rows("rounds.csv")] == ["1", "2", "3"]
    assert len(run.rows("hospitals.csv")) == 9
    assert "trai" not in {row["phase"] for row in run.rows("timing.csv")}


def test_a_hospital_that_lost_its_training_is_excluded_by_name(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    stopped = federate("run", grid=stopping(tmp_path / "run", 2), **ROUNDS)
    (stopped.path / "hospitals" / "hospital-2" / "training.safetensors").unlink()
    run = federate("run", resume=str(stopped.path), **ROUNDS)
    last = run.rows("hospitals.csv")[-1]
    assert (last["hospital"], last["status"]) == ("hospital-2", "excluded")
    assert "stands after round 0, but it finished round 2" in last["reason"]


def test_a_hospital_that_lost_events_is_refuted(federate: Callable[..., Run], tmp_path: Path) -> None:
    stopped = federate("run", grid=stopping(tmp_path / "run", 2), **ROUNDS)
    folder = stopped.path / "hospitals" / "hospital-0"
    (folder / "counter.json").unlink()
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:1]))  # its terms alone
    run = federate("run", resume=str(stopped.path), **ROUNDS)
    assert "had 3" in run.summary["refuted"]["hospital-0"]
    assert run.summary["epsilon"]["hospital-0"] >= run.summary["epsilon"]["hospital-1"] * 0.6
    assert not run.summary["formal"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another key": ({"learning_rate": 0.01}, "has learning-rate = 0.004, not 0.01"),
    "another number of rounds": ({"num_server_rounds": 9}, "has num-server-rounds = 3, not 9"),
    "fewer hospitals": ({"nodes": simulated_nodes(2)}, "has hospitals 3, not 2"),
}


def test_a_run_goes_on_only_with_what_it_began_with(federate: Callable[..., Run], tmp_path: Path) -> None:
    stopped = federate("run", grid=stopping(tmp_path / "run", 1), **ROUNDS)
    kept = (stopped.path / FILE).read_bytes()
    for changes, words in REFUSED.values():
        with pytest.raises(UserError, match=words):
            federate("run", resume=str(stopped.path), **{**ROUNDS, **changes})
        assert (stopped.path / FILE).read_bytes() == kept
    write_json(stopped.path / "config.json", {**read_json(stopped.path / "config.json"), "run": "7"})
    with pytest.raises(UserError, match="is another run's"):
        federate("run", resume=str(stopped.path), **ROUNDS)


def without_ray(hospitals: tuple[int, ...], server_round: int) -> type[InProcessGrid]:
    """A grid that says of these hospitals, from this round on, what Flower says when Ray has ended."""

    class WithoutRay(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            config = message.content.config_records.get("config", {})
            late = message.metadata.message_type == "train" and config["server-round"] >= server_round
            if not late or message.metadata.dst_node_id - 2 not in hospitals:
                return super()._deliver(message)
            reply = Message(
                Error(0, "<class 'ray.exceptions.ActorDiedError'>:<'it\ndied'>"), reply_to=message
            )
            reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
            return reply

    return WithoutRay


def test_a_run_whose_ray_has_ended_fails_and_goes_on(federate: Callable[..., Run], tmp_path: Path) -> None:
    """It went on to its last round with nobody in it, charged every round and counted as complete."""
    whole = federate("whole", **ROUNDS)
    with pytest.raises(RuntimeError, match="Ray ended in round 2, and every hospital with it"):
        federate("run", grid=without_ray((0, 1, 2), 2), **ROUNDS)
    assert read_json(tmp_path / "run" / "summary.json")["status"] == "failed"
    run = federate("run", resume=str(tmp_path / "run"), **ROUNDS)
    for table in TABLES:
        assert (run.path / table).read_bytes() == (whole.path / table).read_bytes(), table
    one_worker = federate("worker", grid=without_ray((1,), 2), **ROUNDS)  # control
    assert [row["hospitals_trained"] for row in one_worker.rows("rounds.csv")] == ["3", "2", "2"]


def test_a_table_with_other_columns_is_left_to_its_version(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    """Rows of this version would stand under the wrong names."""
    stopped = federate("run", grid=stopping(tmp_path / "run", 1), **ROUNDS)
    table = stopped.path / "rounds.csv"
    table.write_text(table.read_text().replace("hospitals_trained,hospitals_declined", "trained,declined"))
    before = table.read_bytes()
    with pytest.raises(UserError, match=r"rounds\.csv has other columns than this version"):
        federate("run", resume=str(stopped.path), **ROUNDS)
    assert table.read_bytes() == before


def test_a_run_without_checkpoints_or_complete_can_not_go_on(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    without = federate("run", grid=stopping(tmp_path / "run", 1), **{**ROUNDS, "checkpoint_every": 0})
    with pytest.raises(UserError, match="it has no checkpoint; start it again"):
        federate("run", resume=str(without.path), **{**ROUNDS, "checkpoint_every": 0})
    whole = federate("whole", **{**ROUNDS, "num_server_rounds": 1})
    with pytest.raises(UserError, match="is complete; start a new one"):
        federate("whole", resume=str(whole.path), **{**ROUNDS, "num_server_rounds": 1})


def test_a_masked_round_that_was_answered_is_lost_and_the_run_goes_on(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    keys = {**ROUNDS, "protection": "secagg", "checkpoint_every": -1}
    with pytest.raises(Killed):
        federate("run", grid=killing(1, server_round=2), **keys)
    run = federate("run", resume=str(tmp_path / "run"), **keys)
    trained = [row["hospitals_trained"] for row in run.rows("rounds.csv")]
    assert trained == ["3", "0", "3"]
    reasons = {row["reason"] for row in run.rows("hospitals.csv") if row["round"] == "2"}
    assert reasons == {"the run was interrupted in this round, and masked rounds are answered once"}
    assert len({*run.summary["epsilon"].values()}) == 1, "the lost round is charged to all"
