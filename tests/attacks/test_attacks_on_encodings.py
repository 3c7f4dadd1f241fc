"""Attacks on encodings and on the classifier find what is there to find."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from attacks.attacked import PLAIN
from attacks.audits import TINY, audited
from support import Run

from fl_ppae.attacks import adversarial_examples, audited_run


def test_origins_show_if_hospitals_keep_their_own_encoders_and_not_in_iid_updates(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(audited_run, "QUICK", dataclasses.replace(TINY, origins=100))

    def accuracy(share: str) -> dict:
        run = federate(share, share=share, num_server_rounds=4, **PLAIN)
        (row,) = audited(run, "--attacks", "hospital-inference")["results"]
        return row

    apart, common = accuracy("encodings"), accuracy("updates")
    assert apart["chance"] == common["chance"] == pytest.approx(1 / 3)
    assert apart["value"] > 0.6
    assert common["value"] == pytest.approx(1 / 3, abs=0.2)  # five standard deviations of 150 guesses


def test_extraction_copies_a_linear_classifier(federate: Callable[..., Run]):
    run = federate("run", **PLAIN)  # a classifier that is right, so that its answers are not all the same
    rows = audited(run, "--attacks", "model-extraction")["results"]
    agreement, copy, original = rows
    assert copy["metric"] == original["metric"] == "accuracy"
    assert abs(copy["value"] - original["value"]) <= 1 - agreement["value"]
    assert original["variant"] == "of the classifier copied"
    assert agreement["value"] > 0.9  # 60 queries, encodings of 16 numbers
    assert agreement["chance"] < 0.5  # the most frequent answer


def test_adversarial_examples_work(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("art")
    monkeypatch.setattr(adversarial_examples, "_RADII", (1, 64))  # the prototypes are far from each other
    monkeypatch.setattr(adversarial_examples, "_SHOWN", 64)
    run = federate("run", **PLAIN)
    rows = {row["variant"]: row for row in audited(run, "--attacks", "adversarial-examples")["results"]}
    assert list(rows) == ["unchanged", "FGSM, 64/255", "PGD, 64/255"]
    assert rows["unchanged"]["value"] > 0.5
    assert rows["PGD, 64/255"]["value"] < rows["PGD, 64/255"]["chance"] - 0.3


def test_changed_images_stay_within_radius_and_range():
    pytest.importorskip("art")
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    labels = network(torch.from_numpy(images)).argmax(1).numpy()
    by_method = adversarial_examples._attacks(network, torch.Size((1, 8, 8)), 3)
    assert [len(by_loss) for by_loss in by_method.values()] == [3, 3]
    for attack in itertools.chain(*by_method.values()):
        changed = attack(images, labels, 0.1)
        assert np.abs(changed - images).max() == pytest.approx(0.1, abs=1e-6)
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert np.mean(network(torch.from_numpy(changed)).argmax(1).numpy() == labels) < 0.7


class Linear(torch.nn.Module):
    """Scores (N, K) that are `scale` times the same linear map."""

    def __init__(self, weights: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(scale * weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1) - 0.5) @ self.weights


@pytest.mark.parametrize("classes", [2, 5])
def test_accuracy_under_attack_is_exact_and_does_not_rise_with_the_scale_of_the_scores(classes: int):
    """Of two classes, a linear classifier is wrong exactly where radius * |w|_1 exceeds the margin."""
    pytest.importorskip("art")
    generator, radius = torch.Generator().manual_seed(classes), 0.01
    images = 0.3 + 0.4 * torch.rand(300, 1, 6, 6, generator=generator)
    weights = 5 * torch.randn(36, classes, generator=generator)
    scores = Linear(weights, 1.0)(images).detach()
    labels = scores.argmax(1)

    def accuracies(scale: float) -> dict[str, float]:
        network = Linear(weights, scale)
        found = {}
        for name, by_loss in adversarial_examples._attacks(network, images.shape[1:], classes).items():
            changed = [torch.from_numpy(one(images.numpy(), labels.numpy(), radius)) for one in by_loss]
            right = torch.stack([network(each).argmax(1) == labels for each in changed])
            found[name] = right.all(0).float().mean().item()
        return found

    others = torch.arange(classes) != labels[:, None]
    leads = scores.gather(1, labels[:, None]) - scores
    costs = radius * (weights.T[labels][:, None] - weights.T[None]).abs().sum(2)
    exact = (leads > costs)[others].view(300, classes - 1).all(1).float().mean().item()
    assert 0.1 < exact < 0.9
    for scale in (1.0, 10.0, 50.0, 1e4):
        for found in accuracies(scale).values():
            assert found == pytest.approx(exact, abs=0.005 if classes == 2 else 0.05)
    confident = Linear(weights, 50.0)  # the control: the plain loss has no gradient left
    changed = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(confident(changed), labels), changed)
    stepped = (images + radius * slope.sign()).clamp(0, 1)
    assert (confident(stepped).argmax(1) == labels).float().mean() > exact + 0.1


def test_a_colluder_practises_on_another_encoder_and_does_no_worse_than_the_mean_image(
    federate: Callable[..., Run], tmp_path: Path
):
    run = federate("run", share="encodings", dp_scope="none", noise_multiplier=0.0, num_server_rounds=4)
    options = ("--attacks", "inversion-black-box", "--attacker", "colluding-hospital")
    for row in audited(run, *options)["results"]:
        above = row["value"] - row["chance"]
        assert (-above if row["metric"] == "mse" else above) >= -0.01
    assert len([*(tmp_path / "home" / "shadows").glob("encoder-*")]) == 1
