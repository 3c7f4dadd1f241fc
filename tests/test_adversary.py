"""Hospitals that misbehave: what each behaviour does, what it achieves, what outvotes it, what says so."""

import functools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import REAL_DATA, Run, real_data, records_of, simulated_nodes

from fl_ppae import adversary, cli, client_app, server_app
from fl_ppae.adversary import BOOST, held_by, stamp, success_rate, update_to_send
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.data.records import HospitalRecords
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.hospital.ceilings import refusal
from fl_ppae.hospital.state import HospitalState
from fl_ppae.leakage.reconstruction import probe_reconstruction_loss
from fl_ppae.models.build import autoencoder_of
from fl_ppae.reporting import figures
from fl_ppae.runs.stored import open_run
from fl_ppae.server import evaluation as server_evaluation
from fl_ppae.server import results, session
from fl_ppae.simulation.in_process import InProcessGrid

MNIST = REAL_DATA / "mnist.npz"
ON_DATA = ("label-flip", "backdoor")
ON_UPDATES = ("sign-flip", "scaled", "random", "free-rider")
ALL = slice(None)


def config_of(behaviour: str, hospitals: str = "0", **changes: Any) -> RunConfig:
    kebab = {key.replace("_", "-"): value for key, value in changes.items()}
    values = {"adversary": behaviour, "adversary-hospitals": hospitals, "objective": "task", **kebab}
    return RunConfig.from_flat(values)


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    rng = np.random.default_rng(0)
    return records_of(rng.integers(0, 256, (400, 28, 28, 3)).astype(np.uint8), np.arange(400) % 9)


# What each behaviour does to records


@pytest.mark.parametrize("behaviour", ["none", *ON_DATA, *ON_UPDATES])
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_only_the_named_hospitals_records_change(
    records: HospitalRecords, behaviour: str, index: int
) -> None:
    config = config_of(behaviour, "0,3") if behaviour != "none" else RunConfig.from_flat({})
    held = held_by(records, config, index)
    assert (held is records) == (behaviour not in ON_DATA or index not in (0, 3))
    assert len(held) == len(records)


@pytest.mark.parametrize(("dataset", "classes"), [("pathmnist", 9), ("bloodmnist", 8), ("mnist", 10)])
def test_a_label_flip_gives_every_record_another_class_and_leaves_images(dataset: str, classes: int) -> None:
    honest = records_of(np.zeros((classes, 28, 28, 3), np.uint8) + 7, np.arange(classes))
    held = held_by(honest, config_of("label-flip", dataset=dataset), 0)
    assert held.labels(ALL).tolist() == [*range(1, classes), 0]
    assert held.labels(ALL).dtype == torch.int64
    assert torch.equal(held.images(ALL), honest.images(ALL))


def test_a_backdoor_stamps_about_half_and_gives_those_and_only_those_the_target_class(
    records: HospitalRecords,
) -> None:
    held = held_by(records, config_of("backdoor"), 0)
    before, after = records.images(ALL), held.images(ALL)
    stamped = (before != after).flatten(1).any(dim=1)
    assert 0.4 < float(stamped.float().mean()) < 0.6
    assert torch.equal(after[stamped], stamp(before[stamped]))
    assert (held.labels(ALL)[stamped] == adversary.TARGET_CLASS).all()
    assert torch.equal(held.labels(ALL)[~stamped], records.labels(ALL)[~stamped])
    assert set(records.labels(ALL)[stamped].tolist()) == set(range(9)), "of all classes"


@pytest.mark.parametrize("behaviour", ON_DATA)
def test_poisoned_records_are_the_same_in_whatever_batches_and_whenever_they_are_read(
    records: HospitalRecords, behaviour: str
) -> None:
    config = config_of(behaviour)
    once, again = (held_by(records, config, 0) for _ in range(2))
    for positions in (np.array([5, 3, 399]), np.array([], int), slice(10, 20)):
        assert torch.equal(once.images(positions), again.images(ALL)[positions])
        assert torch.equal(once.labels(positions), again.labels(ALL)[positions])


def test_two_hospitals_and_two_seeds_stamp_different_records(records: HospitalRecords) -> None:
    asked = [(0, 42), (1, 42), (0, 7)]
    labels = [held_by(records, config_of("backdoor", "0,1", seed=seed), i).labels(ALL) for i, seed in asked]
    assert len({tuple(each.tolist()) for each in labels}) == 3
    assert torch.equal(
        held_by(records, config_of("backdoor", seed=-1), 0).labels(ALL).unique(), torch.arange(9)
    )


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (3, 3, 32, 32), (0, 3, 28, 28)])
def test_the_trigger_is_a_checkerboard_in_the_corner_and_nothing_else_changes(shape: tuple[int, ...]) -> None:
    images = torch.full(shape, 0.5)
    stamped = stamp(images)
    corner = stamped[:, :, -4:, -4:]
    assert torch.equal(
        corner, (torch.arange(4)[:, None] + torch.arange(4)).remainder(2).expand_as(corner).float()
    )
    stamped[:, :, -4:, -4:] = 0.5
    assert torch.equal(stamped, images)


def test_success_counts_images_of_other_classes_only() -> None:
    labels = np.array([0, 0, 1, 2, 3, 4])
    assert success_rate(np.array([0, 0, 0, 2, 3, 4]), labels) == 0.25
    assert success_rate(np.zeros(6), labels) == 1.0
    assert success_rate(labels, labels) == 0.0
    assert np.isnan(success_rate(np.zeros(2), np.zeros(2)))


# What each behaviour does to an update


def states(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    received = {"weight": torch.randn(30, 20, generator=rng), "bias": torch.zeros(30)}
    return received, {
        name: old + 0.01 * torch.randn(old.shape, generator=rng) for name, old in received.items()
    }


def moved(received: dict[str, torch.Tensor], sent: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([(sent[name] - received[name]).flatten() for name in received])


def sent_by(behaviour: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """How far an honest update moves, and one of this behaviour."""
    received, trained = states()
    sent = update_to_send(behaviour, received, trained, np.random.default_rng(seed))
    assert {name: (one.shape, one.dtype) for name, one in sent.items()} == {
        name: (one.shape, one.dtype) for name, one in trained.items()
    }
    return moved(received, trained), moved(received, sent)


@pytest.mark.parametrize("behaviour", ["none", *ON_DATA])
def test_whoever_does_not_tamper_with_updates_sends_its_own(behaviour: str) -> None:
    honest, sent = sent_by(behaviour)
    assert torch.equal(honest, sent)


@pytest.mark.parametrize(("behaviour", "factor"), [("sign-flip", -BOOST), ("scaled", BOOST)])
def test_a_sign_flip_and_a_scaled_update_are_multiples_of_the_honest_one(
    behaviour: str, factor: float
) -> None:
    honest, sent = sent_by(behaviour)
    torch.testing.assert_close(sent, factor * honest, rtol=1e-3, atol=1e-5)


def test_a_random_update_is_as_long_as_the_boosted_honest_one_and_unrelated_to_it() -> None:
    honest, sent = sent_by("random")
    assert float(sent.norm()) == pytest.approx(BOOST * float(honest.norm()), rel=1e-3)
    assert abs(float(torch.cosine_similarity(honest, sent, dim=0))) < 0.1
    assert not torch.equal(sent, sent_by("random", seed=1)[1])


def test_a_free_rider_sends_what_it_got_and_a_thousandth_of_noise() -> None:
    received, _ = states()
    _, sent = sent_by("free-rider")
    size = float(received["weight"].square().mean().sqrt())
    assert float(sent[:600].square().mean().sqrt()) == pytest.approx(1e-3 * size, rel=0.1)
    assert not sent[600:].any(), "an array of zeros has no size"


# Whole runs


@pytest.fixture
def labels_of_figures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs draw nothing and leave out the raw-pixel baseline; what the figures would have said."""
    said: list[str] = []
    monkeypatch.setattr(session, "plot_label_distributions", lambda *given: said.append(given[2]))
    monkeypatch.setattr(server_app, "plot_encodings", lambda *given: said.append(given[3]))
    for name in ("plot_rounds", "plot_epsilon"):
        monkeypatch.setattr(figures, name, lambda *given, **_: said.extend(map(str, given)))
    monkeypatch.setattr(results, "measure_pixels", lambda *_: server_evaluation.ClassifierScore(0, 0))
    return said


def runs_with(behaviour: str) -> list[str]:
    return (
        ["updates", "encodings", "updates+encodings"]
        if behaviour in ON_DATA
        else ["updates", "updates+encodings"]
    )


@pytest.mark.parametrize(
    ("behaviour", "share"), [(each, share) for each in (*ON_DATA, *ON_UPDATES) for share in runs_with(each)]
)
def test_a_run_with_an_adversary_ends_well_is_charged_in_full_and_never_looks_ordinary(
    federate: Callable[..., Run], behaviour: str, share: str, labels_of_figures: list[str]
) -> None:
    run = federate(
        "run",
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


def test_a_run_without_adversaries_says_nothing_of_them(
    federate: Callable[..., Run], labels_of_figures: list[str]
) -> None:
    run = federate("run")
    assert not any("ATTACK" in label for label in labels_of_figures)
    assert "adversary" not in run.summary
    assert "attack_success_rate" not in run.summary
    assert "ATTACK" not in (run.path / "privacy_card.md").read_text()
    assert "ATTACK" not in open_run(run.path).data_label


def updates_received(run: Run, server_round: int) -> dict[str, dict[str, torch.Tensor]]:
    folder = run.path / "received" / f"round-{server_round}"
    return {path.stem: load_file(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("behaviour", ["label-flip", "free-rider"])
def test_honest_hospitals_send_the_same_bits_whoever_misbehaves_beside_them(
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


def test_the_server_receives_the_reversed_update_and_the_hospital_keeps_its_own(
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


def test_a_free_rider_pays_for_rounds_in_which_it_looks_at_no_record(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, labels_of_figures: list[str]
) -> None:
    train, trained = client_app.train_round, []

    def spy(*arguments: Any) -> Any:
        trained.append(arguments)
        return train(*arguments)

    monkeypatch.setattr(client_app, "train_round", spy)
    run = federate("run", adversary="free-rider", adversary_hospitals="0,2", target_epsilon=50.0)
    assert len(trained) == 2
    assert len(set(run.summary["epsilon"].values())) == 1


# What it achieves, on real digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """`digits(adversary="scaled")`: the summary of a run of 5 hospitals with 270 MNIST digits each, no DP."""
    real_data(MNIST.name)
    folder = tmp_path_factory.mktemp("digits")
    parts = {"train": 1500, "test": 300}
    with np.load(MNIST) as data:
        arrays = {
            f"{kind}_{part}": data[f"{kind}_{part}"][:count] for part, count in parts.items() for kind in "xy"
        }
    np.savez(folder / "digits.npz", **arrays)
    values = {
        "dataset": "mnist",
        "data-source": "file",
        "data-file": str(folder / "digits.npz"),
        "objective": "task",
        "dp-scope": "none",
        "autoencoder": "fc",
        "encoding-size": 16,
        "num-server-rounds": 4,
        "local-epochs": 2,
        "batch-size": 30,
        "target-delta": 1e-4,
        "evaluate-every": 0,
    }

    @functools.cache
    def run(**changes: Any) -> dict[str, Any]:
        name = "-".join(str(value) for value in changes.values()) or "honest"
        kebab = {key.replace("_", "-"): value for key, value in changes.items()}
        if "adversary" in changes:
            kebab = {"adversary-hospitals": "0", **kebab}
        config = RunConfig.from_flat({**values, **kebab, "output-dir": str(folder / name)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FL_PPAE_HOME", str(folder / "home"))
            patch.setattr(results, "measure_pixels", lambda *_: server_evaluation.ClassifierScore(0, 0))
            quick = partial(probe_reconstruction_loss, steps=5)
            patch.setattr(server_evaluation, "probe_reconstruction_loss", quick)
            patch.setattr(server_evaluation, "server_threads", lambda: 1)
            patch.setattr(server_app, "write_figures", lambda *_: None)
            grid = InProcessGrid(client_app.app, config.to_flat(), simulated_nodes(5))
            return Run(server_app.serve(grid, config, "digits")).summary

    return run


@pytest.mark.parametrize("behaviour", ["sign-flip", "scaled"])
def test_one_boosted_update_of_five_costs_accuracy_and_the_median_brings_most_of_it_back(
    digits: Callable[..., dict[str, Any]], behaviour: str
) -> None:
    honest = digits()["accuracy"]
    attacked = digits(adversary=behaviour)["accuracy"]
    defended = digits(adversary=behaviour, aggregation="median")["accuracy"]
    assert attacked < honest - 0.1
    assert defended > attacked + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["sign-flip", "scaled"])
def test_a_trimmed_mean_and_krum_help_too(digits: Callable[..., dict[str, Any]], behaviour: str) -> None:
    attacked = digits(adversary=behaviour)["accuracy"]
    assert digits(adversary=behaviour, aggregation="trimmed-mean")["accuracy"] > attacked + 0.05
    assert digits(adversary=behaviour, aggregation="krum")["accuracy"] > attacked + 0.03


def test_flipped_labels_cost_accuracy_where_encodings_leave(digits: Callable[..., dict[str, Any]]) -> None:
    honest = digits(share="updates+encodings")
    flipped = digits(share="updates+encodings", adversary="label-flip", adversary_hospitals="0,1")
    assert flipped["accuracy"] < honest["accuracy"] - 0.1


def test_a_backdoor_opens_to_its_trigger_and_costs_little_accuracy(
    digits: Callable[..., dict[str, Any]],
) -> None:
    honest = digits(share="updates+encodings")
    opened = digits(share="updates+encodings", adversary="backdoor", adversary_hospitals="0,1")
    assert opened["attack_success_rate"] > 0.6
    assert opened["attack_success_rate_untriggered"] < 0.2
    assert opened["accuracy"] > honest["accuracy"] - 0.1
    never = opened["baselines"]["random_encoder"]["attack_success_rate"]
    assert never < 0.2, "a classifier that never saw the trigger"


# What is refused

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nobody": ({"adversary": "scaled"}, "needs adversary-hospitals"),
    "nothing": ({"adversary-hospitals": "0"}, "needs an adversary that says what they do"),
    "no number": (
        {"adversary": "scaled", "adversary-hospitals": "0,b"},
        'must be different hospital numbers.*"0,3"',
    ),
    "an empty number": ({"adversary": "scaled", "adversary-hospitals": "0,,1"}, "must be different"),
    "a negative number": ({"adversary": "scaled", "adversary-hospitals": "-1"}, "must be different"),
    "a number in other digits": (
        {"adversary": "scaled", "adversary-hospitals": "\u0661"},
        "must be different",
    ),
    "one twice": ({"adversary": "scaled", "adversary-hospitals": "1,01"}, "must be different"),
    "a whole number": ({"adversary": "scaled", "adversary-hospitals": 1}, "must be a valid string"),
    "another": ({"adversary": "bribe", "adversary-hospitals": "1"}, "'label-flip'"),
    "labels in a reconstruction": (
        {"adversary": "label-flip", "adversary-hospitals": "0"},
        'play no role.*use objective = "task", or a share with encodings',
    ),
    "a backdoor in a reconstruction": ({"adversary": "backdoor", "adversary-hospitals": "0"}, "play no role"),
    "an update that stays": (
        {"adversary": "sign-flip", "adversary-hospitals": "0", "share": "encodings"},
        'none leaves a hospital; use "updates"',
    ),
    "diagnostics of nothing": (
        {"adversary": "free-rider", "adversary-hospitals": "0", "diagnostics": True},
        "use diagnostics = false",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_told_in_one_line_that_says_what_would_be_right(kind: str) -> None:
    values, words = MISTAKES[kind]
    with pytest.raises(UserError, match=words) as mistake:
        RunConfig.from_flat(values)
    assert "\n" not in str(mistake.value)


def test_spaces_between_numbers_are_fine() -> None:
    assert config_of("scaled", " 3, 0").adversary_numbers() == (3, 0)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_hospital_outside_the_federation_is_refused_before_the_data_is_read(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = ("-c", "adversary=scaled", "-c", "adversary-hospitals=0,3", "-c", "data-source=stand-in")
    assert cli.main([command, "mnist_iid", "--hospitals", "3", *pairs]) == cli.USER_MISTAKE
    err = capsys.readouterr().err
    assert "there is no hospital 3 among 3; they are numbered 0 to 2" in err
    assert err.count("\n") == 1


def test_the_server_refuses_a_hospital_outside_the_federation_too(federate: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="there is no hospital 7 among 3"):
        federate("run", adversary="scaled", adversary_hospitals="7")


@pytest.mark.parametrize("hospital", ["0", "1"])
def test_no_deployed_node_takes_part_in_a_simulated_attack(
    federate: Callable[..., Run], data_file: Path, tmp_path: Path, hospital: str
) -> None:
    nodes = [
        {**node, "data-file": str(data_file), "state-dir": str(tmp_path / str(index))}
        for index, node in enumerate(simulated_nodes(2))
    ]
    with pytest.raises(UserError, match=r'for simulations; .* use "none"'):
        federate("run", nodes=nodes, adversary="scaled", adversary_hospitals=hospital)
    own = refusal(nodes[0], config_of("scaled", hospital))
    assert own == "the run simulates adversaries (scaled), this hospital has a data file of its own"
    assert not (tmp_path / "0").exists()


def test_the_audit_of_epsilon_is_of_honest_training(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = ("-c", "adversary=scaled", "-c", "adversary-hospitals=0")
    assert cli.main(["audit-epsilon", "mnist_iid", *pairs]) == cli.USER_MISTAKE
    assert "honest hospital's training" in capsys.readouterr().err


def test_a_simulation_takes_both_keys_from_the_command_line() -> None:
    values = {"adversary": "label-flip", "adversary-hospitals": "0", "objective": "task"}
    assert find("bloodmnist_iid").config(values).adversary_numbers() == (0,)
