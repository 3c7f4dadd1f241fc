"""A model that learned by heart gives its members away; under DP it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks.attacked import PLAIN, attacked, noise_images, opened, random_labels, row
from support import Run

from fl_ppae.attacks import (
    membership,
    membership_classifier,
    membership_encoder,
)
from fl_ppae.attacks.membership import match_class_mix
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import Unmeasurable


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_a_classifier_that_learned_by_heart_gives_its_members_away(
    federate: Callable[..., Run], tmp_path: Path, share: str
):
    file = random_labels(tmp_path / "random.npz")
    run = federate("run", share=share, data_file=str(file), encoding_size=784, **PLAIN)
    findings = attacked(run, membership_classifier.ATTACK)
    assert row(findings, "auc", "loss threshold").value > 0.55
    relative = row(findings, "auc", "RMIA")
    assert relative.low > 0.6 and relative.chance == 0.5 and relative.undefended == relative.value
    for each in findings.details:  # a classifier that saw no candidate
        assert each.value == pytest.approx(each.chance, abs=0.15)


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


@pytest.mark.slow
def test_an_encoder_that_learned_by_heart_gives_its_members_away_and_not_under_dp(
    federate: Callable[..., Run], tmp_path: Path
):
    file = noise_images(tmp_path / "noise.npz")
    work = {"encoding_size": 49, "local_epochs": 3, "num_server_rounds": 10, "data_file": str(file)}
    plain = attacked(federate("plain", **work, **PLAIN), membership_encoder.ATTACK, network_steps=300)
    assert row(plain, "auc", "RMIA").value > 0.95
    assert row(plain, "auc", "RMIA").undefended is None
    noisy = federate("private", noise_multiplier=20.0, **work)
    private = attacked(noisy, membership_encoder.ATTACK, network_steps=300)
    found = row(private, "auc", "RMIA")
    control = next(each for each in private.details if each.metric == "auc")
    assert found.undefended > 0.95
    assert max(found.value, control.value) < 0.85  # of 20 members, 0.5 with a standard deviation of 0.09


def test_candidates_of_other_centres_are_marked(federate: Callable[..., Run]):
    audited = opened(federate("run"))
    assert membership.threat_of(audited, membership_encoder.SERVER) == "server"
    dataset = dataclasses.replace(audited.dataset, spec=DATASETS["pathmnist"])
    elsewhere = dataclasses.replace(audited, dataset=dataset)
    assert "different centres" in membership.threat_of(elsewhere, membership_encoder.SERVER)


@pytest.mark.parametrize("most", [5, 60, 10_000])
def test_non_members_have_the_members_class_mix(most: int):
    rng = np.random.default_rng(0)
    wanted = rng.choice(4, 300, p=[0.5, 0.3, 0.2, 0.0])
    labels = rng.choice([0, 1, 3], 400)  # class 2 isn't there
    rows = match_class_mix(wanted, labels, most)
    assert len(rows) <= most + 2 and len(np.unique(rows)) == len(rows)
    shares = np.bincount(labels[rows], minlength=4) / len(rows)
    assert shares[2] == shares[3] == 0
    if most > 5:
        assert shares[0] == pytest.approx(5 / 8, abs=0.06)


def test_members_of_classes_that_nobody_else_has_are_compared_with_nobody():
    match_class_mix(np.array([0, 1]), np.array([1, 2]), 9)
    with pytest.raises(Unmeasurable, match="no record that nothing was trained on"):
        match_class_mix(np.array([0, 1]), np.array([2, 3]), 9)
