"""Runs in which hospitals fail, refuse or run out of budget: they stay charged, and the run goes on."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support import Run, simulated_nodes

from fl_ppae import client_app
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.hospital import updates
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.privacy.plan import HospitalPlan, plan_hospital
from fl_ppae.simulation.in_process import InProcessGrid


def failing(hospital: int, server_round: int) -> type[InProcessGrid]:
    """A grid on which one hospital's handler raises in one round, before it reads anything."""

    class Failing(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            config = message.content.config_records.get("config", {})
            if (message.metadata.dst_node_id, config.get("server-round")) == (hospital + 2, server_round):
                message = copy.deepcopy(message)  # the server sends all hospitals the same content
                del message.content["config"]
            return super()._deliver(message)

    return Failing


def test_a_hospital_that_raises_is_charged_and_the_run_goes_on(federate: Callable[..., Run]) -> None:
    run = federate("run", grid=failing(hospital=1, server_round=2), num_server_rounds=3, target_epsilon=50.0)
    rows = [row for row in run.rows("hospitals.csv") if row["hospital"] == "hospital-1"]
    assert [row["status"] for row in rows] == ["trained", "failed", "trained"]
    assert [row["hospitals_trained"] for row in run.rows("rounds.csv")] == ["3", "2", "3"]
    spent = [float(row["epsilon"]) for row in rows]
    assert spent[0] < spent[1] < spent[2]
    summary = run.summary
    assert summary["status"] == "completed"
    assert summary["epsilon"]["hospital-1"] == summary["epsilon"]["hospital-0"], (
        "charged as if it had trained"
    )
    assert len(read_ledger(run.path / "hospitals" / "hospital-1" / "ledger.jsonl").events) == 2


def test_a_hospital_that_crashes_after_paying_has_paid(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = updates.train_round, []

    def crash_once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:  # hospital-1 in round 2
            raise RuntimeError("out of memory")
        return train(*arguments)

    monkeypatch.setattr(updates, "train_round", crash_once)
    run = federate("run", num_server_rounds=3, target_epsilon=50.0)
    rows = [row for row in run.rows("hospitals.csv") if row["hospital"] == "hospital-1"]
    assert [row["status"] for row in rows] == ["trained", "failed", "trained"]
    assert "out of memory" in rows[1]["reason"]
    events = read_ledger(run.path / "hospitals" / "hospital-1" / "ledger.jsonl").events
    assert [event.round for event in events] == [1, 2, 3]
    assert run.summary["epsilon"]["hospital-1"] == run.summary["epsilon"]["hospital-0"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_round_asked_for_twice_is_the_same_reply_or_is_paid_twice_with_fresh_noise(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Only a hospital that keeps its replies, for runs with checkpoints, can send the same one again."""
    streams, keys, sent = client_app.streams, [], []

    class Twice(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type != "train":
                return reply
            again = super()._deliver(message)
            pairs = zip(*(one.content["arrays"].values() for one in (reply, again)), strict=True)
            sent.append(all(one.data == other.data for one, other in pairs))
            return again

    def spy(*key: int) -> Any:
        keys.append(key)
        return streams(*key)

    monkeypatch.setattr(client_app, "streams", spy)
    run = federate("run", grid=Twice, target_epsilon=50.0, checkpoint_every=1 if kept else 0)
    times = 1 if kept else 2
    assert len(keys) == len(set(keys)) == 3 * 2 * times
    assert sent == [kept] * 3 * 2
    for account in run.ledger["hospitals"].values():
        assert [event["round"] for event in account["events"]] == sorted([1, 2] * times)


def test_if_every_hospital_refuses_the_encoder_stays_and_the_run_completes(
    federate: Callable[..., Run],
) -> None:
    nodes = [{**node, "max-epsilon": 0.1} for node in simulated_nodes(3)]
    run = federate("run", nodes=nodes)
    assert run.summary["status"] == "completed"
    assert set(run.summary["epsilon"].values()) == {0.0}
    assert {row["status"] for row in run.rows("hospitals.csv")} == {"stopped"}
    assert "max-epsilon = 0.1" in run.rows("hospitals.csv")[0]["reason"]
    assert run.summary["accuracy"] == run.summary["baselines"]["random_encoder"]["accuracy"]
    assert not list(run.path.glob("hospitals/*/ledger.jsonl")), "nobody agreed to anything"


def test_a_run_in_which_nobody_trained_has_failed_and_says_why(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hospitals' calibration differs from the server's in the last digit."""

    def another(name: str, records: int, config: RunConfig) -> HospitalPlan:
        plan = plan_hospital(name, records, config)
        return replace(plan, noise_multiplier=math.nextafter(plan.noise_multiplier or 0.0, 100.0))

    monkeypatch.setattr("fl_ppae.hospital.terms.plan_hospital", another)
    with pytest.raises(
        RuntimeError, match="no hospital trained in any round; hospital-0 excluded: its poisson"
    ):
        federate("run")


def test_a_spent_budget_declines_and_the_encoder_stays(federate: Callable[..., Run]) -> None:
    run = federate("run", target_epsilon=2.5, num_server_rounds=5, evaluate_every=1)
    rows = [row for row in run.rows("hospitals.csv") if row["hospital"] == "hospital-0"]
    statuses = [row["status"] for row in rows]
    trained = statuses.count("trained")
    assert 0 < trained < 5
    assert statuses == ["trained"] * trained + ["stopped"] * (5 - trained)
    assert [row["steps"] for row in rows][trained:] == ["0"] * (5 - trained)
    assert all(value <= 2.5 for value in run.summary["epsilon"].values())
    assert len(run.ledger["hospitals"]["hospital-0"]["events"]) == trained
    losses = [row["reconstruction_loss"] for row in run.rows("rounds.csv")]
    assert len(set(losses[trained - 1 :])) == 1


def test_one_hospital_that_allows_no_encodings_is_left_out_of_them(federate: Callable[..., Run]) -> None:
    nodes = simulated_nodes(3)
    nodes[2]["allow-plain-encodings"] = False
    run = federate("run", nodes=nodes, share="updates+encodings")
    uploads = run.summary["uploads"]
    assert [uploads[f"hospital-{index}"]["records"] for index in range(3)] == [100, 100, 0]
    assert "allow-plain-encodings" in uploads["hospital-2"]["refused"]


def test_a_failed_run_says_why(federate: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="target-delta"):
        federate("run", target_delta=0.5)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["status"] == "failed"
    assert "target-delta" in summary["error"]
