"""Whole runs whose updates travel masked: their tables, what is kept of them, and that they repeat."""

from collections.abc import Callable

import numpy as np
import pytest
from attacks.attacked import opened
from masked_federation import Network, lost
from safetensors.numpy import load_file
from support import Run

from fl_ppae.attacks import membership_updates
from fl_ppae.messages import TRAIN

MASKED_RUN = {"protection": "secagg", "record_messages": True}


def test_a_masked_run_repeats_and_keeps_masked_updates_alone(federate: Callable[..., Run]) -> None:
    one, other = (federate(name, **MASKED_RUN) for name in ("one", "other"))
    for table in ("rounds.csv", "hospitals.csv", "ledger.json", "encoder.safetensors"):
        assert (one.path / table).read_bytes() == (other.path / table).read_bytes(), "sums are exact"
    assert one.summary["formal"]
    assert {(row["status"], row["reason"]) for row in one.rows("hospitals.csv")} == {("trained", "")}
    files = sorted((one.path / "received").glob("round-*/hospital-*.safetensors"))
    assert len(files) == 6
    for file in files:
        (vector,) = load_file(file).values()
        assert (vector.dtype, vector.shape) == (np.uint32, (16 * 784 + 16,))
        again = load_file(other.path / file.relative_to(one.path))["masked"]
        assert np.mean(vector == again) < 0.01, "masks are never the same, though the updates are"
    attack = membership_updates.ATTACK
    assert "masked" in str(attack.missing(opened(one), attack.threat_models[0]))


def test_a_masked_run_learns_what_a_plain_one_learns(federate: Callable[..., Run]) -> None:
    masked, plain = federate("masked", protection="secagg"), federate("plain")
    assert (masked.path / "ledger.json").read_bytes() == (plain.path / "ledger.json").read_bytes()
    two = [load_file(run.path / "encoder.safetensors") for run in (masked, plain)]
    for name, value in two[0].items():
        np.testing.assert_allclose(value, two[1][name], rtol=1e-6, atol=1e-6)


def test_lost_hospitals_stand_in_the_table_with_the_reason_and_are_charged_for_what_they_trained(
    federate: Callable[..., Run],
) -> None:
    grid = type("Lossy", (Network,), {"tamper": staticmethod(lost((TRAIN, "hospital-2")))})
    run = federate("run", grid=grid, protection="secagg", min_hospitals=2)
    rows = [(row["status"], row["reason"]) for row in run.rows("hospitals.csv")]
    assert rows == 2 * [("trained", ""), ("trained", ""), ("failed", "no reply in time")]
    charged = [len(account["events"]) for account in run.ledger["hospitals"].values()]
    assert charged == [2, 2, 2], "who does not answer is charged too"


def test_a_run_without_a_single_sum_fails_and_says_why(federate: Callable[..., Run]) -> None:
    grid = type("Lossy", (Network,), {"tamper": staticmethod(lost((TRAIN, "hospital-1")))})
    with pytest.raises(RuntimeError, match="fewer than min-hospitals = 3"):
        federate("run", grid=grid, protection="secagg")


JOINT_RUN = {
    "local_steps": 1,
    "objective": "task",
    "dp_scope": "autoencoder",
    "protection": "secagg",
    "noise": "joint",
    "sample_rate": 0.2,
    "honest_hospitals": 2,
}


def test_a_joint_run_repeats_and_every_event_says_how_many_must_be_honest(
    federate: Callable[..., Run],
) -> None:
    one, other = (federate(name, **JOINT_RUN) for name in ("one", "other"))
    for table in ("rounds.csv", "hospitals.csv", "ledger.json", "encoder.safetensors"):
        assert (one.path / table).read_bytes() == (other.path / table).read_bytes(), table
    for account in one.ledger["hospitals"].values():
        events = [(event["mechanism"], event["honest"], event["steps"]) for event in account["events"]]
        assert events == 2 * [("joint-gaussian", 2, 1)]
    assert one.summary["status"] == "completed"
