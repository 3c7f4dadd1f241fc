"""Attacks on models and updates: they work without defence, weaken under DP, and say what they lack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import REAL_DATA, Run, real_data, simulated_nodes, write_npz

from fl_ppae.attacks import (
    gradient_inversion,
    membership,
    membership_classifier,
    membership_encoder,
    membership_updates,
    property_inference,
    shadows,
)
from fl_ppae.attacks.attack import Attack, Findings, Result
from fl_ppae.attacks.audited_run import AuditedRun, Effort, open_for_audit
from fl_ppae.attacks.received import received_rounds, simulated_updates
from fl_ppae.data.registry import DATASETS
from fl_ppae.runs.stored import open_run

EFFORT = Effort(50, 200, 20, 4, 60, 30, shadows=2, update_rounds=2, simulated=40, searches=30)
BLOOD = REAL_DATA / "bloodmnist.npz"
PLAIN = {"dp_scope": "none", "noise_multiplier": 0.0}


def opened(run: Run, **changes: int) -> AuditedRun:
    effort = dataclasses.replace(EFFORT, **changes)
    return open_for_audit(open_run(run.path), effort, lambda _: None)


def attacked(run: Run, attack: Attack, **changes: int) -> Findings:
    audited, (model,) = opened(run, **changes), attack.threat_models
    assert attack.missing(audited, model) is None
    return attack.run(audited, model)


def row(findings: Findings, metric: str, variant: str = "") -> Result:
    (found,) = [each for each in findings.results if each.metric == metric and variant in each.variant]
    return found


def random_labels(path: Path) -> Path:
    """As `write_npz`, but labels mean nothing: a classifier can only learn them by heart."""
    with np.load(write_npz(path, records=330)) as data:
        arrays = dict(data)
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        arrays[f"y_{split}"] = rng.permutation(arrays[f"y_{split}"])
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_a_classifier_that_learned_by_heart_gives_its_members_away(
    federate: Callable[..., Run], tmp_path: Path, share: str
):
    file = random_labels(tmp_path / "random.npz")
    run = federate("run", share=share, data_file=str(file), encoding_size=784, **PLAIN)
    findings = attacked(run, membership_classifier.ATTACK)
    assert row(findings, "auc", "loss threshold").low > 0.55
    relative = row(findings, "auc", "RMIA")
    assert relative.low > 0.6 and relative.chance == 0.5 and relative.undefended == relative.value
    for each in findings.details:  # a classifier that saw no candidate
        assert each.low < each.chance < each.high


def test_noised_encodings_of_16_numbers_do_not(federate: Callable[..., Run], tmp_path: Path):
    file = random_labels(tmp_path / "random.npz")
    run = federate(
        "run",
        share="updates+encodings",
        data_file=str(file),
        encoding_noise_epsilon=8.0,
        projection_size=8,
        target_delta=1e-3,
    )
    findings = attacked(run, membership_classifier.ATTACK)
    assert {each.variant for each in findings.results} == {"loss threshold"}
    assert row(findings, "auc").low < 0.6


def test_an_encoder_that_learned_by_heart_gives_its_members_away_and_not_under_dp(
    federate: Callable[..., Run], tmp_path: Path
):
    file = noise_images(tmp_path / "noise.npz")
    work = {"encoding_size": 49, "local_epochs": 3, "num_server_rounds": 10, "data_file": str(file)}
    plain = attacked(federate("plain", **work, **PLAIN), membership_encoder.ATTACK, network_steps=300)
    assert row(plain, "auc", "RMIA").value > 0.7
    assert row(plain, "auc", "RMIA").undefended is None
    private = attacked(federate("private", **work), membership_encoder.ATTACK, network_steps=300)
    found = row(private, "auc", "RMIA")
    assert found.low < 0.55
    assert found.undefended > found.value + 0.1
    control = next(each for each in private.details if each.metric == "auc")
    assert control.low < 0.5 < control.high


def noise_images(path: Path) -> Path:
    """Few train records of pixel noise, of which there is nothing to learn but each itself."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 60, "val": 400, "test": 60}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 10
    np.savez(path, **arrays)
    return path


def test_updates_give_their_records_away_and_not_under_dp(federate: Callable[..., Run], tmp_path: Path):
    work = {"record_messages": True, "data_file": str(noise_images(tmp_path / "noise.npz"))}
    plain = attacked(federate("plain", **work, **PLAIN), membership_updates.ATTACK)
    assert row(plain, "auc", "cosine, 2 rounds").low > 0.6
    private = attacked(federate("private", noise_multiplier=20.0, **work), membership_updates.ATTACK)
    found = row(private, "auc", "cosine, 2 rounds")
    assert found.low < 0.6
    assert found.undefended > found.value + 0.1


def test_received_rounds_are_the_run_again(federate: Callable[..., Run]):
    run = federate("run", record_messages=True, num_server_rounds=3)
    audited = opened(run)
    rounds = received_rounds(audited, 99)
    assert [each.number for each in rounds] == [1, 2, 3]
    assert received_rounds(audited, 2)[-1].number == 2
    final = load_file(run.path / "encoder.safetensors")
    records = audited.stored.config["records"]
    start, last = dict(rounds[-1].start.named_parameters()), rounds[-1].updates
    moved = sum(last[name] * records[name] for name in last) / sum(records.values())
    flat = torch.cat([(final[name] - value).flatten() for name, value in start.items()])
    torch.testing.assert_close(flat, moved, rtol=1e-3, atol=1e-6)


def test_a_simulated_hospital_moves_as_far_as_the_real_one(federate: Callable[..., Run]):
    audited = opened(federate("run", record_messages=True))
    rounds, victim = received_rounds(audited, 2), audited.hospitals[0]
    records = audited.deal.train[victim]
    for update, each in zip(
        simulated_updates(audited.config, records, len(records), rounds, 0), rounds, strict=True
    ):
        assert update.norm().item() == pytest.approx(each.updates[victim].norm().item(), rel=0.1)


def mixed_file(path: Path) -> Path:
    return write_npz(path, records=1500)


def test_a_class_mix_is_told_from_updates_where_hospitals_differ(
    federate: Callable[..., Run], tmp_path: Path
):
    work = {
        "record_messages": True,
        "data_file": str(mixed_file(tmp_path / "mixed.npz")),
        "partition": "pathological",
        "classes_per_hospital": 3,
    }
    plain = attacked(federate("plain", **work, **PLAIN), property_inference.ATTACK)
    found = row(plain, "total variation")
    assert found.chance > 0.6
    assert found.value < 0.6 * found.chance
    noisy = attacked(federate("noisy", noise_multiplier=20.0, **work), property_inference.ATTACK)
    assert row(noisy, "total variation").value > found.value + 0.1
    assert row(noisy, "total variation").undefended < 0.6 * found.chance
    assert [each.group for each in plain.details] == ["hospital-0", "hospital-1", "hospital-2"]


def test_of_evenly_dealt_hospitals_there_is_no_mix_to_find(federate: Callable[..., Run], tmp_path: Path):
    file = mixed_file(tmp_path / "mixed.npz")
    run = federate("even", record_messages=True, data_file=str(file), **PLAIN)
    found = row(attacked(run, property_inference.ATTACK), "total variation")
    assert found.chance < 0.15
    assert found.value > 0.5 * found.chance


def test_gradient_inversion_tells_the_run_with_its_noise_and_without(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gradient_inversion, "BATCHES", (1, 2))
    monkeypatch.setattr(gradient_inversion, "_IMAGES", 2)
    work = {"autoencoder": "conv", "encoding_size": 0}
    private = attacked(federate("private", **work), gradient_inversion.ATTACK, searches=150)
    for metric in ("ssim", "psnr"):
        found = row(private, metric)
        assert found.variant == "batch 1"
        assert found.undefended > found.chance > found.value
    assert {each.variant for each in private.details} == {"batch 2"}
    plain = attacked(federate("plain", **work, **PLAIN), gradient_inversion.ATTACK, searches=150)
    assert row(plain, "psnr").value == row(plain, "psnr").undefended
    assert row(plain, "psnr").value == pytest.approx(row(private, "psnr").undefended)


def test_what_a_run_lacks_is_said(federate: Callable[..., Run]):
    def reason(run: Run, attack: Attack) -> str | None:
        return attack.missing(opened(run), attack.threat_models[0])

    silent, alone = federate("silent"), federate("alone", share="encodings")
    for attack in (membership_updates.ATTACK, property_inference.ATTACK):
        assert "needs record-messages=true" in str(reason(silent, attack))
        assert "share = encodings" in str(reason(alone, attack))
    assert "server's split alone" in str(reason(silent, membership_classifier.ATTACK))
    assert "kept its encoder" in str(reason(alone, membership_encoder.ATTACK))
    assert reason(silent, membership_encoder.ATTACK) is None
    assert reason(alone, membership_classifier.ATTACK) is None
    assert reason(alone, gradient_inversion.ATTACK) is None


def test_shadow_models_are_kept_by_what_they_depend_on(tmp_path: Path):
    made = []

    def make(value: float) -> dict[str, torch.Tensor]:
        made.append(value)
        return {"weight": torch.tensor([value])}

    first = shadows.kept("encoder", {"seed": 1}, lambda: make(1.0))
    again = shadows.kept("encoder", {"seed": 1}, lambda: make(2.0))
    assert made == [1.0] and torch.equal(first["weight"], again["weight"])
    shadows.kept("encoder", {"seed": 2}, lambda: make(3.0))
    assert made == [1.0, 3.0]
    for file in (tmp_path / "home" / "shadows").iterdir():
        file.write_bytes(file.read_bytes()[:20])  # a damaged one is made again
    shadows.kept("encoder", {"seed": 1}, lambda: make(4.0))
    assert made == [1.0, 3.0, 4.0]


def test_a_second_audit_trains_no_shadow(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    run = federate("run")
    first = attacked(run, membership_encoder.ATTACK)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(shadows, "train_round", refuse)
    second = attacked(run, membership_encoder.ATTACK)
    assert [each.value for each in second.results] == [each.value for each in first.results]
    with pytest.raises(AssertionError, match="trained again"):
        attacked(federate("other", learning_rate=0.003), membership_encoder.ATTACK)


def test_quick_trains_no_model_for_comparison(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    run = federate("run")
    monkeypatch.setattr(shadows, "train_round", None)
    findings = attacked(run, membership_encoder.ATTACK, shadows=0)
    assert {each.variant for each in findings.results} == {"loss threshold"}


def test_candidates_of_other_centres_are_marked(federate: Callable[..., Run]):
    audited = opened(federate("run"))
    assert membership.words_of(audited, membership_encoder.SERVER) == "server"
    dataset = dataclasses.replace(audited.dataset, spec=DATASETS["pathmnist"])
    elsewhere = dataclasses.replace(audited, dataset=dataset)
    assert "other centres" in membership.words_of(elsewhere, membership_encoder.SERVER)


@pytest.mark.slow
def test_on_real_cells_the_mix_is_told_and_rmia_beats_the_loss(federate: Callable[..., Run]):
    real_data(BLOOD.name)
    run = federate(
        "blood",
        dataset="bloodmnist",
        data_file=str(BLOOD),
        autoencoder="conv",
        encoding_size=0,
        batch_size=1024,
        target_delta=1e-5,
        objective="task",
        share="updates+encodings",
        partition="pathological",
        record_messages=True,
        **PLAIN,
    )
    mix = row(attacked(run, property_inference.ATTACK), "total variation")
    assert mix.value < 0.5 * mix.chance  # 0.15 against 0.6 when measured, of five hospitals
    findings = attacked(run, membership_classifier.ATTACK)
    assert row(findings, "auc", "RMIA").low > 0.55
    assert row(findings, "auc", "RMIA").low > row(findings, "auc", "loss").high
    assert row(findings, "tpr at 0.1 % fpr", "RMIA").value > 0.003


def few_cells(path: Path) -> Path:
    """BloodMNIST with 1,000 train images, for hospitals of few records."""
    real_data(BLOOD.name)
    with np.load(BLOOD) as data:
        arrays = dict(data)
    rows = np.sort(np.random.default_rng(0).permutation(len(arrays["train_images"]))[:1000])
    for name in ("train_images", "train_labels"):
        arrays[name] = arrays[name][rows]
    np.savez(path, **arrays)
    return path


@pytest.mark.slow
def test_small_hospitals_updates_give_real_cells_away_and_not_under_dp(
    federate: Callable[..., Run], tmp_path: Path
):
    work = {
        "dataset": "bloodmnist",
        "data_file": str(few_cells(tmp_path / "few.npz")),
        "autoencoder": "conv",
        "encoding_size": 0,
        "batch_size": 100,
        "learning_rate": 0.004,
        "max_grad_norm": 0.001,
        "target_delta": 1e-5,
        "objective": "task",
        "record_messages": True,
        "nodes": simulated_nodes(10),
    }
    plain = attacked(federate("plain", **work, **PLAIN), membership_updates.ATTACK)
    assert row(plain, "auc", "whitened").low > 0.7  # 0.88 when measured
    assert row(plain, "tpr at 1 % fpr", "whitened").low > 0.02
    private = attacked(
        federate("private", target_epsilon=8.0, noise_multiplier=0.0, **work), membership_updates.ATTACK
    )
    found = row(private, "auc", "whitened")
    assert found.low < 0.55
    assert found.undefended > found.value + 0.1
