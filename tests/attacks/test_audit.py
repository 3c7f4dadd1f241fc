"""`fl-ppae audit`: works on a finished run, says what it can't do, and refuses data that has changed."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import Run, simulated_nodes, write_npz

from fl_ppae import cli
from fl_ppae.attacks import adversarial_examples, audited_run, inversion, needs, scenes
from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, MEASUREMENT, SERVER_SPLIT, Attack, Findings, result
from fl_ppae.attacks.audited_run import AuditedRun, Effort, open_for_audit
from fl_ppae.attacks.registry import ATTACKS
from fl_ppae.attacks.runner import run_attacks
from fl_ppae.errors import UserError
from fl_ppae.leakage.intervals import Estimate
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.encoding import encode
from fl_ppae.runs.stored import open_run
from fl_ppae.server.classification import restore_classifier

TINY = Effort(50, 200, 2, 4, 60, 30)
CHEAP = "similarity,retrieval,dependence,hospital-inference,model-extraction"
INVERSIONS = "inversion-black-box,inversion-white-box"


@pytest.fixture(autouse=True)
def little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited_run, "QUICK", TINY)
    monkeypatch.setattr(inversion, "_DRAWN", 2)


def opened(run: Run, effort: Effort = TINY) -> AuditedRun:
    return open_for_audit(open_run(run.path), effort, lambda _: None)


def audited(run: Run, *options: str) -> dict:
    assert cli.main(["audit", str(run.path), "--quick", *options]) == 0
    return json.loads((run.path / "audit" / "results.json").read_text())


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


def test_the_threat_model_is_a_parameter(federate: Callable[..., Run]):
    document = audited(
        federate("run"), "--attacks", "similarity,inversion-black-box", "--attacker", "colluding-hospital"
    )
    models = [row["threat_model"] for row in document["results"]]
    assert models == ["measurement"] * 2 + ["colluding-hospital"] * 3


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


def test_uploads_are_attacked_as_they_were_released(federate: Callable[..., Run]):
    run = federate("run", share="encodings")
    opening = opened(run)
    assert opening.encoder is None
    victims = scenes.measurement(opening).victims
    released = np.concatenate(
        [
            np.load(next((run.path / "hospitals" / f"hospital-{n}").glob("released-*-train.npy")))
            for n in (1, 2)
        ]
    )
    assert all((row == released).all(1).any() for row in victims.encodings.numpy())
    own = {name: opening.own_encoder(name) for name in opening.hospitals}
    half = len(victims) // 2
    for name, part in (("hospital-1", slice(half)), ("hospital-2", slice(half, None))):
        np.testing.assert_allclose(
            encode(own[name], victims.images[part]), victims.encodings[part].numpy(), atol=1e-5
        )
    black = scenes.black_box(opening, COLLUDING_HOSPITAL)
    np.testing.assert_allclose(
        encode(own["hospital-0"], black.known.images), black.known.encodings.numpy(), atol=1e-5
    )
    assert "no one but its hospital" in needs.black_box_missing(opening, SERVER_SPLIT)
    assert "STRONGER" in scenes.white_box(opening, SERVER_SPLIT).words
    assert "STRONGER" not in scenes.black_box(opening, COLLUDING_HOSPITAL).words


def test_uploads_of_an_adversary_stand_beside_the_images_and_labels_that_it_made_up(
    federate: Callable[..., Run],
):
    work = {"share": "updates+encodings", "adversary_hospitals": "1"}
    backdoored = opened(federate("backdoor", adversary="backdoor", **work))
    victims = scenes.measurement(backdoored).victims
    np.testing.assert_allclose(
        encode(backdoored.encoder, victims.images), victims.encodings.numpy(), atol=1e-5
    )
    flipped = opened(federate("flip", adversary="label-flip", **work))
    half = len(victims) // 2
    honest = scenes.measurement(opened(federate("honest", share="updates+encodings"))).victims.labels
    changed = scenes.measurement(flipped).victims.labels
    assert torch.equal(changed[:half], (honest[:half] + 1) % 10)
    assert torch.equal(changed[half:], honest[half:])


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_an_audit_of_uploads(federate: Callable[..., Run], share: str, capsys: pytest.CaptureFixture[str]):
    run = federate("run", share=share)
    document = audited(run, "--attacks", f"{CHEAP},{INVERSIONS}")
    skipped = [(row["attack"], row["threat_model"]) for row in document["skipped"]]
    assert skipped == ([("inversion-black-box", "server-split")] if share == "encodings" else [])
    assert ("no one but its hospital has an encoder" in capsys.readouterr().out) == (share == "encodings")
    words = {row["threat_model"] for row in document["results"] if row["attack"] == "inversion-white-box"}
    assert all(("STRONGER" in word) == (share == "encodings") for word in words)


@pytest.mark.parametrize("share", ["updates", "encodings", "updates+encodings"])
@pytest.mark.parametrize("model", [SERVER_SPLIT, COLLUDING_HOSPITAL])
def test_no_image_attacked_is_among_the_attackers(federate: Callable[..., Run], share, model):
    opening = opened(federate("run", share=share), Effort(500, 500, 1, 1, 10, 10))
    found = [
        make(opening, model)
        for make, missing in (
            (scenes.black_box, needs.black_box_missing),
            (scenes.white_box, needs.white_box_missing),
        )
        if missing(opening, model) is None
    ]
    assert found
    for scene in found:
        known = {image.numpy().tobytes() for image in scene.known.images}
        assert not known & {image.numpy().tobytes() for image in scene.victims.images}
        assert len(known) > 30
        assert not torch.equal(scene.through(opening.initial_encoder).known.encodings, scene.known.encodings)


def test_the_victims_of_updates_are_the_test_split_by_the_common_encoder(federate: Callable[..., Run]):
    run = federate("run")
    opening = opened(run, Effort(500, 500, 1, 1, 10, 10))
    victims = scenes.measurement(opening).victims
    test = opening.dataset.test
    assert np.array_equal(victims.labels.numpy(), test.labels)
    encoder = build_autoencoder("fc", 16, (1, 28, 28), 0).encoder
    encoder.load_state_dict(load_file(run.path / "encoder.safetensors"))
    np.testing.assert_array_equal(encode(encoder, test.images), victims.encodings.numpy())


def test_origins_show_where_hospitals_keep_their_own_encoders_and_not_in_iid_updates(
    federate: Callable[..., Run],
):
    def accuracy(share: str) -> dict:
        run = federate(share, share=share, dp_scope="none", noise_multiplier=0.0, num_server_rounds=4)
        (row,) = audited(run, "--attacks", "hospital-inference")["results"]
        return row

    apart, common = accuracy("encodings"), accuracy("updates")
    assert apart["chance"] == common["chance"] == pytest.approx(1 / 3)
    assert apart["value"] > 0.8
    assert common["low"] < 1 / 3 < common["high"]


def test_extraction_copies_a_linear_classifier(federate: Callable[..., Run]):
    run = federate("run")
    rows = audited(run, "--attacks", "model-extraction")["results"]
    agreement, copy, original = rows
    assert copy["metric"] == original["metric"] == "accuracy"
    assert abs(copy["value"] - original["value"]) <= 1 - agreement["value"]
    assert original["variant"] == "of the classifier copied"
    assert agreement["value"] > 0.9  # 60 queries, encodings of 16 numbers
    assert agreement["chance"] < 0.3


def test_adversarial_examples_work(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("art")
    monkeypatch.setattr(adversarial_examples, "_RADII", (1, 64))  # the prototypes are far from each other
    monkeypatch.setattr(adversarial_examples, "_SHOWN", 64)
    run = federate("run", dp_scope="none", noise_multiplier=0.0)
    rows = {row["variant"]: row for row in audited(run, "--attacks", "adversarial-examples")["results"]}
    assert list(rows) == ["unchanged", "FGSM, 64/255", "PGD, 64/255"]
    assert rows["unchanged"]["value"] > 0.6
    assert rows["PGD, 64/255"]["value"] < rows["PGD, 64/255"]["chance"] - 0.3


def test_changed_images_stay_within_radius_and_range():
    pytest.importorskip("art")
    from fl_ppae.attacks.adversarial_examples import _attacks

    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    labels = network(torch.from_numpy(images)).argmax(1).numpy()
    for attack in _attacks(network, torch.Size((1, 8, 8)), 3).values():
        changed = attack(images, labels, 0.1)
        assert np.abs(changed - images).max() == pytest.approx(0.1, abs=1e-6)
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert np.mean(network(torch.from_numpy(changed)).argmax(1).numpy() == labels) < 0.7


@pytest.mark.parametrize("classifier", ["lr", "resnet18"])
def test_a_classifier_is_restored_from_its_state(classifier: str):
    from fl_ppae.server.classification import ResnetTraining, classifier_state, fit_and_score

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 49)).astype(np.float32), rng.integers(0, 3, 60)
    fitted, _ = fit_and_score(classifier, x, y, x, y, 3, 0, 1, resnet=ResnetTraining(steps=2))
    restored = restore_classifier(classifier, classifier_state(fitted), 3)
    np.testing.assert_array_equal(restored.probabilities(x), fitted.probabilities(x))


def test_data_that_has_changed_is_refused(federate: Callable[..., Run], data_file: Path):
    run = federate("run")
    opened(run)
    write_npz(data_file, seed=1)
    with pytest.raises(UserError, match=r"the data has changed: .* MD5"):
        opened(run)
    data_file.unlink()
    with pytest.raises(UserError, match="no such file"):
        opened(run)


def test_data_that_has_moved_is_found(federate: Callable[..., Run], data_file: Path, tmp_path: Path):
    run = federate("run")
    moved = data_file.rename(tmp_path / "elsewhere.npz")
    stored = open_run(run.path)
    assert len(open_for_audit(stored, TINY, lambda _: None, str(moved)).dataset.test) == 60


def test_another_partition_than_the_runs_is_refused(federate: Callable[..., Run]):
    run = federate("run")
    dealt = run.path / "hospitals" / "hospital-1" / "train_records.npy"
    np.save(dealt, np.load(dealt)[::-1])
    with pytest.raises(UserError, match="not what the run's configuration deals to hospital-1"):
        opened(run)


def test_a_run_that_did_not_complete_is_refused(federate: Callable[..., Run]):
    run = federate("run")
    stored = open_run(run.path)
    with pytest.raises(UserError, match="'failed'; only a completed run"):
        open_for_audit(
            dataclasses.replace(stored, summary=stored.summary | {"status": "failed"}), TINY, lambda _: None
        )


def failing(message: str | None) -> Attack:
    row = result("late", "measurement", "metric", Estimate(0.5, 0.4, 0.6, 9))
    return Attack(
        "late",
        "an attack added later",
        "nobody",
        lambda *_: Findings((row,)),
        (MEASUREMENT,),
        (lambda *_: message,),
    )


def test_what_a_run_lacks_is_a_skip_among_all_and_an_error_by_name(federate: Callable[..., Run]):
    opening = opened(federate("run"))
    audit = run_attacks(opening, (failing("needs record-messages=true"), failing(None)), named=False)
    assert [row.value for row in audit.results] == [0.5]
    assert [(each.attack, each.reason) for each in audit.skipped] == [("late", "needs record-messages=true")]
    with pytest.raises(UserError, match="late is not possible on run: needs record-messages=true"):
        run_attacks(opening, (failing(None), failing("needs record-messages=true")), named=True)


def test_mistakes_are_told_in_one_line(federate: Callable[..., Run], capsys: pytest.CaptureFixture[str]):
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


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_attackers_of_noised_uploads_know_all_but_the_noise(federate: Callable[..., Run], share: str):
    noised = {"encoding_noise_epsilon": 500.0, "projection_size": 8}  # little: what is known shows
    opening = opened(federate("run", share=share, **noised), Effort(60, 90, 2, 4, 60, 30))
    assert opening.release is not None
    scene = scenes.white_box(opening, SERVER_SPLIT)
    assert scene.victims.encodings.shape[1:] == scene.known.encodings.shape[1:] == (8,)
    for pairs in (scene.victims, scene.known):
        clean = scene.encode(pairs.images)
        assert clean.norm(dim=1).max() <= 1 + 1e-5
        spread = (pairs.encodings - clean).std().item()
        assert spread == pytest.approx(opening.release.noise_multiplier, rel=0.15)
        assert spread < clean.std().item() / 2


def test_noised_uploads_are_audited_and_stop_the_inversion(federate: Callable[..., Run]):
    run = federate("run", share="updates+encodings", encoding_noise_epsilon=1.0, projection_size=8)
    document = audited(run, "--attacks", f"{CHEAP},{INVERSIONS}")
    assert document["skipped"] == []
    for row in document["results"]:
        if row["metric"] == "ssim":
            assert row["value"] < row["class_chance"]
            assert row["value"] < row["undefended"] - 0.1
