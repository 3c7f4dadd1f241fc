"""`fl-ppae audit`: its tables, files and JSON, and what it says of attacks it can't run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest
from attacks.audits import CHEAP, INVERSIONS, audited, opened
from support import Run, simulated_nodes

from fl_ppae import cli
from fl_ppae.attacks import inversion
from fl_ppae.attacks.registry import ATTACKS


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inversions are measured, and their pictures are empty files."""
    monkeypatch.setattr(inversion, "plot_image_rows", lambda _panels, path, *_: path.touch())


def test_an_audit_of_a_run_that_shares_updates(
    federate: Callable[..., Run], capsys: pytest.CaptureFixture[str]
):
    run = federate("run", share="updates")
    document = audited(run, "--attacks", f"{CHEAP},{INVERSIONS}")
    printed = capsys.readouterr()
    assert "tiny.npz" in printed.out
    assert "server-split" in printed.out and "colluding-hospital" in printed.out
    assert "inversion-white-box" in printed.err  # progress
    assert document["skipped"] == []
    rows = {(row["attack"], row["threat_model"], row["metric"]): row for row in document["results"]}
    for model in ("server-split", "colluding-hospital"):
        for attack in ("inversion-black-box", "inversion-white-box"):
            ssim = rows[attack, model, "ssim"]
            assert ssim["low"] <= ssim["value"] <= ssim["high"]
            assert None not in (ssim["chance"], ssim["class_chance"], ssim["undefended"])
            assert (run.path / "audit" / f"{attack}_{model}.png").stat().st_size > 10_000
    with (run.path / "audit" / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(document["results"]) + len(document["details"])
    assert {row["group"] for row in table if row["attack"] == "inversion-black-box"} >= {"all", "0", "9"}


@pytest.mark.usefixtures("no_pictures")
def test_the_threat_model_is_a_parameter(federate: Callable[..., Run]):
    document = audited(
        federate("run"), "--attacks", "similarity,inversion-black-box", "--attacker", "colluding-hospital"
    )
    models = [row["threat_model"] for row in document["results"]]
    assert models == ["measurement"] * 2 + ["colluding-hospital"] * 3


@pytest.mark.usefixtures("no_pictures")
def test_a_hospital_without_an_upload_is_left_out(federate: Callable[..., Run]):
    nodes = [*simulated_nodes(4)[:3], {**simulated_nodes(4)[3], "allow-plain-encodings": False}]
    run = federate("run", share="updates+encodings", nodes=nodes)
    assert opened(run).hospitals == ("hospital-0", "hospital-1", "hospital-2")
    rows = audited(run, "--attacks", "similarity,inversion-black-box,hospital-inference")["results"]
    assert rows[-1]["chance"] == pytest.approx(1 / 3)


def test_json_is_one_document(federate: Callable[..., Run], capsys: pytest.CaptureFixture[str]):
    run = federate("run")
    capsys.readouterr()
    document = audited(run, "--attacks", "similarity", "--json")
    assert json.loads(capsys.readouterr().out) == document
    assert [row["metric"] for row in document["results"]] == ["cosine", "cosine_centred"]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("share", ["encodings", pytest.param("updates+encodings", marks=pytest.mark.slow)])
def test_an_audit_of_uploads(federate: Callable[..., Run], share: str, capsys: pytest.CaptureFixture[str]):
    run = federate("run", share=share)
    document = audited(run, "--attacks", f"{CHEAP},{INVERSIONS}")
    skipped = [(row["attack"], row["threat_model"]) for row in document["skipped"]]
    assert skipped == ([("inversion-black-box", "server-split")] if share == "encodings" else [])
    assert ("no one but its hospital has an encoder" in capsys.readouterr().out) == (share == "encodings")
    words = {row["threat_model"] for row in document["results"] if row["attack"] == "inversion-white-box"}
    assert all(("STRONGER" in word) == (share == "encodings") for word in words)


@pytest.mark.usefixtures("no_pictures")
def test_noised_uploads_are_audited_and_stop_the_inversion(federate: Callable[..., Run]):
    run = federate("run", share="updates+encodings", encoding_noise_epsilon=1.0, projection_size=8)
    document = audited(run, "--attacks", f"{CHEAP},{INVERSIONS}")
    assert document["skipped"] == []
    for row in document["results"]:
        if row["metric"] == "ssim":
            assert row["value"] < row["class_chance"]
            assert row["value"] < row["undefended"] - 0.1


def test_mistakes_are_reported_in_one_line(federate: Callable[..., Run], capsys: pytest.CaptureFixture[str]):
    run = federate("run")
    capsys.readouterr()
    for options, words in (
        (["audit"], "needs a run"),
        (["audit", str(run.path), "--attacks", "inversion-blackbox"], "did you mean 'inversion-black-box'?"),
        (["audit", str(run.path), "--attacks", ","], "names none"),
        (["audit", str(run.path), "--threads", "0"], "--threads"),
        (["audit", "nowhere"], "no run 'nowhere'"),
    ):
        assert cli.main(options) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1 and words in told[0]
    assert not (run.path / "audit").exists()


def test_every_attack_is_listed_in_a_line_with_its_source(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["audit", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["attacks"]
    assert [each["name"] for each in listed] == [attack.name for attack in ATTACKS]
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    for each in listed:
        assert each["description"] and "\n" not in each["description"] and each["source"]
    assert cli.main(["audit", "--list"]) == 0
    assert "arXiv:1412.6572" in capsys.readouterr().out.replace("\n", "")
