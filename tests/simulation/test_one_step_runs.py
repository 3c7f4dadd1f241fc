"""Whole runs whose rounds are one step: the ledger, what leaves, and what the server makes of it."""

from collections.abc import Callable

import numpy as np
import pytest
from attacks.attacked import opened
from safetensors.numpy import load_file
from support import Run

from fl_ppae.attacks import membership_updates
from fl_ppae.config import RunConfig
from fl_ppae.files import read_json
from fl_ppae.models.build import local_model_of
from strategies.server_optimiser import ServerAdam

HEAD = {"local_steps": 1, "objective": "task", "dp_scope": "autoencoder", "sample_rate": 0.2}
FROZEN = {"local_steps": 1, "dp_scope": "frozen-decoder"}


def received(run: Run, server_round: int) -> dict[str, dict[str, np.ndarray]]:
    folder = run.path / "received" / f"round-{server_round}"
    return {file.stem: load_file(file) for file in sorted(folder.iterdir())}


def config_of(run: Run) -> RunConfig:
    return RunConfig.from_flat(read_json(run.path / "config.json")["config"])


def test_a_round_is_one_event_of_one_step_and_the_servers_adam_moves_the_encoder(
    federate: Callable[..., Run],
) -> None:
    run = federate("run", **HEAD, record_messages=True, partition="quantity-skew", target_epsilon=50.0)
    for account in run.ledger["hospitals"].values():
        events = [(event["steps"], event["sample_rate"], event["round"]) for event in account["events"]]
        assert events == [(1, 0.2, 1), (1, 0.2, 2)]
    assert {row["steps"] for row in run.rows("hospitals.csv")} == {"1"}
    records = read_json(run.path / "config.json")["records"]
    config = config_of(run)
    weights = {name: value.numpy() for name, value in local_model_of(config).state_dict().items()}
    adam = ServerAdam(config.learning_rate)
    for server_round in (1, 2):
        sums = received(run, server_round)
        mean = {
            name: sum(records[hospital] * one[name].astype(float) for hospital, one in sums.items())
            / sum(records.values())
            for name in weights
        }
        weights = adam.step(weights, mean)
    for name, kept in load_file(run.path / "encoder.safetensors").items():
        np.testing.assert_allclose(kept, weights[f"encoder.{name}"], rtol=1e-3, atol=1e-6)
        assert not np.allclose(
            kept, load_file(run.path / "received/round-1/hospital-0.safetensors")[f"encoder.{name}"]
        ), "the control: what was sent is a gradient, not an encoder"


@pytest.mark.parametrize("keys", [HEAD, FROZEN])
def test_only_what_is_in_the_noised_sum_leaves_and_the_card_names_it(
    federate: Callable[..., Run], keys: dict[str, object]
) -> None:
    run = federate("run", **keys, record_messages=True)
    with_head = keys is HEAD
    model = local_model_of(config_of(run))
    modules = [model.encoder, *([model.partner] if with_head else [])]
    shapes = sorted(tuple(value.shape) for module in modules for value in module.state_dict().values())
    assert sorted(value.shape for value in received(run, 1)["hospital-0"].values()) == shapes
    promised = run.summary["guarantees"]
    assert ("head" in promised) == with_head
    assert run.summary["formal"] and all(guarantee["formal"] for guarantee in promised.values())
    card = (run.path / "privacy_card.md").read_text()
    assert ("| head update |" in card) == with_head
    if with_head:
        assert promised["head"]["epsilon"] == promised["updates"]["epsilon"] > 0
    assert not list(run.path.glob("hospitals/*/training.safetensors")), "nothing is kept for the next round"


def test_one_step_rounds_of_one_seed_leave_the_same_bytes_and_diagnostics_change_nothing_else(
    federate: Callable[..., Run],
) -> None:
    one, other = (federate(name, **HEAD) for name in ("one", "other"))
    for table in ("rounds.csv", "hospitals.csv", "ledger.json", "encoder.safetensors"):
        assert (one.path / table).read_bytes() == (other.path / table).read_bytes(), table
    watched = federate("watched", **HEAD, diagnostics=True)
    columns = ("loss", "clipped_fraction", "signal_to_noise")
    assert all(float(row[column]) > 0 for row in watched.rows("hospitals.csv") for column in columns)
    assert (one.summary["formal"], watched.summary["formal"]) == (True, False)
    encoders = [(run.path / "encoder.safetensors").read_bytes() for run in (one, watched)]
    assert encoders[0] == encoders[1]


def test_adversaries_and_robust_rules_work_on_gradients(federate: Callable[..., Run]) -> None:
    keys = {**FROZEN, "record_messages": True, "num_server_rounds": 1, "aggregation": "median"}
    honest = received(federate("honest", **keys), 1)
    flipped = received(federate("flip", **keys, adversary="sign-flip", adversary_hospitals="1"), 1)
    lazy = received(federate("lazy", **keys, adversary="free-rider", adversary_hospitals="1"), 1)
    for name, gradient in honest["hospital-1"].items():
        np.testing.assert_allclose(flipped["hospital-1"][name], -10 * gradient, rtol=1e-5)
        assert not lazy["hospital-1"][name].any(), "a free rider's gradient is 0"
        assert np.array_equal(honest["hospital-0"][name], flipped["hospital-0"][name])


def test_attacks_on_encoder_updates_say_that_gradients_are_not_theirs(federate: Callable[..., Run]) -> None:
    attack = membership_updates.ATTACK
    run = opened(federate("run", **FROZEN, record_messages=True, num_server_rounds=1))
    assert "local-steps = 1" in str(attack.missing(run, attack.threat_models[0]))
