"""Whole runs with adversaries: charged in full, marked everywhere, refused in a deployment."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import POISONS_RECORDS, POISONS_UPDATES
from safetensors.torch import load_file
from support import NO_SCORE, Run, simulated_nodes

from fl_ppae import server_app
from fl_ppae.adversary import BOOST
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.hospital import updates
from fl_ppae.hospital.ceilings import limits_of, refusal
from fl_ppae.hospital.node_keys import read_node
from fl_ppae.hospital.state import HospitalState
from fl_ppae.models.build import autoencoder_of
from fl_ppae.reporting import figures
from fl_ppae.runs.stored import open_run
from fl_ppae.server import results, session


@pytest.fixture
def labels_of_figures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of figures, which are not drawn; the raw-pixel baseline and the report are skipped."""
    said: list[str] = []
    monkeypatch.setattr(session, "plot_label_distributions", lambda *given, **_: said.append(given[2]))
    monkeypatch.setattr(server_app, "plot_encodings", lambda *given: said.append(given[3]))
    for name in ("plot_rounds", "plot_epsilon"):
        monkeypatch.setattr(figures, name, lambda run, _: said.append(run.data_label))
    monkeypatch.setattr(server_app, "_write_report", lambda *_: None)
    monkeypatch.setattr(results, "measure_pixels", lambda *_: NO_SCORE)
    return said


def runs_with(behaviour: str) -> list[str]:
    return (
        ["updates", "encodings", "updates+encodings"]
        if behaviour in POISONS_RECORDS
        else ["updates", "updates+encodings"]
    )


@pytest.mark.parametrize(
    ("behaviour", "share"),
    [(each, share) for each in (*POISONS_RECORDS, *POISONS_UPDATES) for share in runs_with(each)],
)
def test_a_run_with_an_adversary_completes_is_charged_in_full_and_is_marked_everywhere(
    federate: Callable[..., Run], behaviour: str, share: str, labels_of_figures: list[str]
) -> None:
    run = federate(
        "run",
        pages=True,
        share=share,
        objective="task",
        adversary=behaviour,
        adversary_hospitals="1",
        target_epsilon=50.0,
    )
    summary = run.summary
    assert summary["status"] == "completed"
    assert {row["status"] for row in run.rows("hospitals.csv")} == {"trained"}
    assert len({json.dumps(one["events"]) for one in run.ledger["hospitals"].values()}) == 1
    assert summary["adversary"] == {"behaviour": behaviour, "hospitals": ["hospital-1"]}
    card = (run.path / "privacy_card.md").read_text()
    assert f"**ATTACK RUN, not an ordinary result: {behaviour} by hospital-1.**" in card
    assert open_run(run.path).data_label.endswith(f"ATTACK RUN: {behaviour} by hospital-1")
    marked = [label for label in labels_of_figures if f"ATTACK RUN: {behaviour} by hospital-1" in label]
    assert len(marked) == (3 if share == "encodings" else 4), "every figure"
    for values in (summary, summary["baselines"]["random_encoder"]):
        assert ("attack_success_rate" in values) == ("attack_success_rate_untriggered" in values)
    assert ("attack_success_rate" in summary) == (behaviour == "backdoor" and share != "encodings")


def test_a_run_without_adversaries_does_not_mention_them(
    federate: Callable[..., Run], labels_of_figures: list[str]
) -> None:
    run = federate("run", pages=True)
    assert not any("ATTACK" in label for label in labels_of_figures)
    assert "adversary" not in run.summary
    assert "attack_success_rate" not in run.summary
    assert "ATTACK" not in (run.path / "privacy_card.md").read_text()
    assert "ATTACK" not in open_run(run.path).data_label


def updates_received(run: Run, server_round: int) -> dict[str, dict[str, torch.Tensor]]:
    folder = run.path / "received" / f"round-{server_round}"
    return {path.stem: load_file(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("behaviour", ["label-flip", "free-rider"])
def test_honest_hospitals_send_the_same_bits_with_or_without_an_adversary(
    federate: Callable[..., Run], behaviour: str, labels_of_figures: list[str]
) -> None:
    first, second = (
        updates_received(
            federate(name, objective="task", record_messages=True, num_server_rounds=1, **asked), 1
        )
        for name, asked in (
            ("honest", {}),
            ("attacked", {"adversary": behaviour, "adversary_hospitals": "1"}),
        )
    )
    same = {
        name: all(torch.equal(first[name][key], second[name][key]) for key in first[name]) for name in first
    }
    assert same == {"hospital-0": True, "hospital-1": False, "hospital-2": True}


def test_the_server_receives_the_reversed_update_and_the_hospital_keeps_the_trained_one(
    federate: Callable[..., Run], labels_of_figures: list[str]
) -> None:
    asked = {"objective": "task", "record_messages": True, "num_server_rounds": 1}
    honest = federate("honest", **asked)
    attacked = federate("attacked", adversary="sign-flip", adversary_hospitals="1", **asked)
    trained, sent = (updates_received(run, 1)["hospital-1"] for run in (honest, attacked))
    start = autoencoder_of(
        RunConfig.from_flat(read_json(honest.path / "config.json")["config"])
    ).encoder.state_dict()
    for name, old in start.items():
        assert not torch.equal(trained[name], old)
        torch.testing.assert_close(sent[name] - old, -BOOST * (trained[name] - old), rtol=1e-3, atol=1e-5)
    state = HospitalState(attacked.path / "hospitals" / "hospital-1").load_training()
    assert state is not None
    assert all(torch.equal(state.encoder[name], trained[name]) for name in start)


def test_a_free_rider_pays_for_rounds_in_which_it_reads_no_record(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, labels_of_figures: list[str]
) -> None:
    train, trained = updates.train_round, []

    def spy(*arguments: Any) -> Any:
        trained.append(arguments)
        return train(*arguments)

    monkeypatch.setattr(updates, "train_round", spy)
    run = federate("run", adversary="free-rider", adversary_hospitals="0,2", target_epsilon=50.0)
    assert len(trained) == 2
    assert len(set(run.summary["epsilon"].values())) == 1


def test_the_server_refuses_a_hospital_outside_the_federation_too(federate: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="there is no hospital 7 among 3"):
        federate("run", adversary="scaled", adversary_hospitals="7")


@pytest.mark.parametrize("hospital", ["0", "1"])
def test_no_deployed_node_takes_part_in_a_simulated_attack(
    federate: Callable[..., Run], data_file: Path, tmp_path: Path, hospital: str
) -> None:
    nodes = [
        {**node, "data-file": str(data_file), "state-dir": str(tmp_path / str(index)), "max-epsilon": 8}
        for index, node in enumerate(simulated_nodes(2))
    ]
    with pytest.raises(UserError, match=r'for simulations; .* use "none"'):
        federate("run", nodes=nodes, adversary="scaled", adversary_hospitals=hospital)
    limits = limits_of(read_node(nodes[0]), 100)
    own = refusal(limits, RunConfig.from_flat({"adversary": "scaled", "adversary-hospitals": hospital}))
    assert own == "the run simulates adversaries (scaled), this hospital has a data file of its own"
    assert not (tmp_path / "0").exists()
