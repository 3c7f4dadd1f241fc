"""Whole runs in this process: their artefacts, their guarantees, and that they repeat."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import HOSPITAL_COLUMNS, ROUND_COLUMNS, RUN_FILES
from safetensors.torch import load_file
from support import Run

from fl_ppae import message_arrays
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.simulation.in_process import run_in_process

SHARES = ["updates", "encodings", "updates+encodings"]
DRAWN = {("none", "updates"), ("encoder", "encodings"), ("frozen-decoder", "updates+encodings")}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    ("scope", "objective"),
    [
        ("none", "task"),
        ("encoder", "reconstruction"),
        ("frozen-decoder", "task"),
        ("autoencoder", "reconstruction"),
        ("autoencoder", "task"),
    ],
)
def test_every_combination_of_sharing_and_noise_runs_and_states_only_valid_guarantees(
    federate: Callable[..., Run], share: str, scope: str, objective: str
) -> None:
    drawn = (scope, share) in DRAWN
    run = federate("run", pages=drawn, share=share, dp_scope=scope, objective=objective)
    summary = run.summary
    assert summary["status"] == "completed"
    left = {path.name for path in run.path.iterdir() if path.is_file()}
    written = RUN_FILES if drawn else RUN_FILES - {"report.html"}
    assert left == written | ({"encoder.safetensors"} if share != "encodings" else set())
    assert {path.suffix for path in run.path.glob("figures/*")} == ({".png"} if drawn else set())
    kept = {path.name for path in run.path.glob("audit-only/*")}
    orders = {f"hospital-{index}-train-order.npy" for index in range(3)}
    own = {f"hospital-{index}{kind}" for index in range(3) for kind in (".safetensors", "-test-order.npy")}
    wanted = {"updates": set(), "encodings": orders | own, "updates+encodings": orders}
    assert kept == wanted[share]
    assert tuple(run.rows("rounds.csv")[0]) == ROUND_COLUMNS
    assert tuple(run.rows("hospitals.csv")[0]) == HOSPITAL_COLUMNS
    assert [row["round"] for row in run.rows("rounds.csv")] == ["1", "2"]
    assert [row["hospital"] for row in run.rows("hospitals.csv")] == 2 * [f"hospital-{i}" for i in range(3)]
    assert 0 <= summary["accuracy"] <= 1
    assert set(summary["baselines"]) == {"trained_on", "raw_pixels", "random_encoder"}

    formal_scope = scope in ("frozen-decoder", "autoencoder")
    promised = summary["guarantees"]
    assert set(promised) == {"updates", "encodings", "labels", "classifier", "total"}
    assert promised["total"]["formal"] == summary["formal"]
    assert summary["formal"] == (formal_scope and share == "updates")
    assert promised["updates"]["formal"] == (formal_scope or share == "encodings")
    assert promised["classifier"]["formal"] == summary["formal"]
    for artefact in ("encodings", "labels"):
        assert promised[artefact]["formal"] == (share == "updates")
        if share != "updates":
            assert promised[artefact]["epsilon"] is None
    assert (summary["epsilon_max"] is None) == (scope == "none")
    assert all(account["formal"] == formal_scope for account in run.ledger["hospitals"].values())
    card = (run.path / "privacy_card.md").read_text()
    assert ("**No guarantee for this run as a whole.**" in card) != summary["formal"]


def test_every_epsilon_of_the_encoder_scope_is_marked_as_nominal_in_the_card(
    federate: Callable[..., Run],
) -> None:
    run = federate("run", dp_scope="encoder")
    card = (run.path / "privacy_card.md").read_text()
    spent = f"{run.summary['epsilon_max']:.3f}"
    assert spent in card
    for line in card.splitlines():
        if line.startswith("| hospital-"):
            numbers = [cell for cell in line.split("|")[4:] if "." in cell]
            assert all("nominal, not a guarantee" in cell for cell in numbers), line
        assert spent not in line or "nominal" in line


def test_diagnostics_fill_their_columns_and_cost_the_run_its_guarantee(federate: Callable[..., Run]) -> None:
    without, with_them = federate("without"), federate("with", diagnostics=True)
    columns = ("loss", "clipped_fraction", "signal_to_noise")
    assert {row[column] for row in without.rows("hospitals.csv") for column in columns} == {""}
    assert all(float(row[column]) > 0 for row in with_them.rows("hospitals.csv") for column in columns)
    assert (without.summary["formal"], with_them.summary["formal"]) == (True, False)
    assert with_them.summary["guarantees"]["diagnostics"]["formal"] is False
    same = [load_file(run.path / "encoder.safetensors") for run in (without, with_them)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0]), "looking changes nothing"


@pytest.mark.parametrize("share", SHARES)
def test_two_runs_of_one_seed_leave_the_same_bytes(federate: Callable[..., Run], share: str) -> None:
    one, other = (
        federate(name, share=share, diagnostics=True, partition="dirichlet") for name in ("one", "other")
    )
    for table in ("rounds.csv", "hospitals.csv", "ledger.json", "classifier.safetensors"):
        assert (one.path / table).read_bytes() == (other.path / table).read_bytes(), table


def test_noise_from_the_operating_system_differs_between_runs(federate: Callable[..., Run]) -> None:
    one, other = (federate(name, seed=-1, diagnostics=True) for name in ("one", "other"))
    for table in ("rounds.csv", "hospitals.csv", "encoder.safetensors"):
        assert (one.path / table).read_bytes() != (other.path / table).read_bytes(), table
    assert one.summary["epsilon"] == other.summary["epsilon"]
    assert "keys from the operating system" in (one.path / "privacy_card.md").read_text()


def test_another_seed_gives_another_run(federate: Callable[..., Run]) -> None:
    one, other = (federate(str(seed), seed=seed) for seed in (1, 2))
    assert (one.path / "encoder.safetensors").read_bytes() != (
        other.path / "encoder.safetensors"
    ).read_bytes()


def test_a_taken_output_directory_is_refused_and_unchanged(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="taken"):
        federate("taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["precious.txt"]


def test_the_number_of_chunks_does_not_change_encodings(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = federate("one", share="encodings")
    monkeypatch.setattr(message_arrays, "CHUNK_BYTES", 7 * 16 * 4)
    many = federate("many", share="encodings")
    for key in ("accuracy", "auc", "leakage", "uploads"):
        assert one.summary[key] == many.summary[key]
    assert (one.path / "classifier.safetensors").read_bytes() == (
        many.path / "classifier.safetensors"
    ).read_bytes()


def test_the_server_writes_no_decoder(federate: Callable[..., Run]) -> None:
    run = federate("run", record_messages=True)
    shapes = [(16,), (16, 784)]
    received = sorted((run.path / "received").glob("round-*/hospital-*.safetensors"))
    assert len(received) == 6
    for file in [*received, run.path / "encoder.safetensors"]:
        assert sorted(tuple(tensor.shape) for tensor in load_file(file).values()) == shapes


def test_the_server_keeps_the_average_of_the_received_updates(federate: Callable[..., Run]) -> None:
    run = federate("run", record_messages=True, partition="quantity-skew", target_epsilon=50.0)
    records = read_json(run.path / "config.json")["records"]
    last = {name: load_file(run.path / "received" / "round-2" / f"{name}.safetensors") for name in records}
    for name, kept in load_file(run.path / "encoder.safetensors").items():
        total = sum(records[hospital] * update[name].double() for hospital, update in last.items())
        np.testing.assert_allclose(kept, total / sum(records.values()), rtol=1e-4, atol=1e-6)


def test_config_json_describes_the_whole_run(federate: Callable[..., Run], data_file: Path) -> None:
    run = federate("run")
    document = read_json(run.path / "config.json")
    assert RunConfig.from_flat(document["config"]).to_flat() == document["config"]
    assert document["data_source"]["file"] == data_file.name
    assert len(document["data_source"]["md5"]) == 32
    assert (document["hospitals"], document["seed"], document["deployed"]) == (3, 42, False)
    assert {"flwr", "torch", "opacus", "dp-accounting", "fl-ppae"} <= set(document["versions"])


def test_run_in_process_starts_as_many_hospitals_as_the_data_was_dealt_to(
    small: Callable[..., RunConfig], tmp_path: Path, federate: Callable[..., Run]
) -> None:
    config = small(output_dir=str(tmp_path / "run"), num_server_rounds=1)
    run = Run(run_in_process(config, make_deal(resolve(config), config, hospital_names(2)), "tiny"))
    assert [row["hospital"] for row in run.rows("hospitals.csv")] == ["hospital-0", "hospital-1"]
    assert run.summary["simulation"] == "tiny"
