"""Attacks on updates and gradients work without defence and weaken under DP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacks.attacked import PLAIN, attacked, noise_images, opened, row
from safetensors.torch import load_file
from support import Run, write_npz

from fl_ppae.attacks import (
    gradient_inversion,
    membership_updates,
    property_inference,
)
from fl_ppae.attacks.received import received_rounds, simulated_updates


def test_updates_give_their_records_away_and_not_under_dp(federate: Callable[..., Run], tmp_path: Path):
    work = {"record_messages": True, "data_file": str(noise_images(tmp_path / "noise.npz"))}
    plain = attacked(federate("plain", **work, **PLAIN), membership_updates.ATTACK)
    assert row(plain, "auc", "cosine, 2 rounds").value > 0.95
    private = attacked(federate("private", noise_multiplier=20.0, **work), membership_updates.ATTACK)
    found = row(private, "auc", "cosine, 2 rounds")
    assert found.value < 0.85  # of 20 members, 0.5 with a standard deviation of 0.09
    assert found.undefended > 0.95


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


def test_received_rounds_start_from_what_the_runs_own_rule_combined(federate: Callable[..., Run]):
    first, both = (
        federate(f"{rounds}", record_messages=True, num_server_rounds=rounds, aggregation="median", **PLAIN)
        for rounds in (1, 2)
    )
    start = received_rounds(opened(both), 2)[1].start.state_dict()
    combined = load_file(first.path / "encoder.safetensors")
    assert all(torch.equal(start[name], combined[name]) for name in combined)


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


@pytest.mark.slow
def test_a_class_mix_is_inferred_from_updates_if_hospitals_differ(
    federate: Callable[..., Run], tmp_path: Path
):
    work = {
        "record_messages": True,
        "data_file": str(mixed_file(tmp_path / "mixed.npz")),
        "partition": "pathological",
        "classes_per_hospital": 3,
    }
    plain = attacked(federate("plain", **work, **PLAIN), property_inference.ATTACK, simulated=25)
    found = row(plain, "total variation")
    assert found.chance > 0.6
    assert found.value < 0.7 * found.chance
    run = federate("noisy", noise_multiplier=20.0, **work)
    noisy = attacked(run, property_inference.ATTACK, simulated=25)
    assert row(noisy, "total variation").value > found.value + 0.1
    assert row(noisy, "total variation").undefended < 0.7 * found.chance
    assert [each.group for each in plain.details] == ["hospital-0", "hospital-1", "hospital-2"]


def test_evenly_dealt_hospitals_have_no_mix_to_find(federate: Callable[..., Run], tmp_path: Path):
    file = mixed_file(tmp_path / "mixed.npz")
    run = federate("even", record_messages=True, data_file=str(file), **PLAIN)
    found = row(attacked(run, property_inference.ATTACK), "total variation")
    assert found.chance < 0.15
    assert 0.5 * found.chance < found.value <= found.chance + 0.01


@pytest.mark.slow
def test_gradient_inversion_is_measured_with_the_runs_noise_and_without(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gradient_inversion, "BATCHES", (1, 2))
    monkeypatch.setattr(gradient_inversion, "_IMAGES", 2)
    work = {"autoencoder": "conv", "encoding_size": 0}
    private = attacked(federate("private", **work), gradient_inversion.ATTACK, searches=60)
    for metric in ("ssim", "psnr"):
        found = row(private, metric)
        assert found.variant == "batch 1, mean image"
        assert found.undefended > found.chance
        assert found.value == pytest.approx(found.chance)
    assert all(each.variant.startswith("batch 2") for each in private.details)
    monkeypatch.setattr(gradient_inversion, "BATCHES", (1,))
    plain = attacked(federate("plain", **work, **PLAIN), gradient_inversion.ATTACK, searches=60)
    assert row(plain, "psnr").value == row(plain, "psnr").undefended
    assert row(plain, "psnr").variant == "batch 1"
    assert row(plain, "psnr").value == pytest.approx(row(private, "psnr").undefended)
