"""Runs whose classifier is the head that hospitals train together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attacks.attacked import opened
from reporting.html_page import text_of
from safetensors.torch import load_file
from support import Run

from fl_ppae.attacks import inversion_black_box, membership_classifier, membership_encoder
from fl_ppae.config import RunConfig
from fl_ppae.data.sources import resolve
from fl_ppae.models.build import local_model_of
from fl_ppae.models.encoding import images_to_tensor
from fl_ppae.reporting.tables import compared_with
from fl_ppae.runs.stored import open_run

TOGETHER: dict[str, Any] = {
    "local_steps": 1,
    "objective": "task",
    "dp_scope": "autoencoder",
    "sample_rate": 1.0,
    "max_grad_norm": 1.0,
    "learning_rate": 0.02,
}
HEAD = {**TOGETHER, "classifier": "head"}


def test_without_a_public_image_the_head_is_the_classifier_and_the_report_says_what_is_not_measured(
    federate: Callable[..., Run], small: Callable[..., RunConfig]
) -> None:
    run = federate("none", **HEAD, public_records=0, pages=True)
    assert run.summary["status"] == "completed"
    model, found = local_model_of(small(**HEAD)), load_file(run.path / "classifier.safetensors")
    model.encoder.load_state_dict(load_file(run.path / "encoder.safetensors"))
    weights = {name.removeprefix("network."): value for name, value in found.items() if "network." in name}
    model.partner.load_state_dict(weights)
    test = resolve(small()).test
    with torch.inference_mode():
        guessed = model(images_to_tensor(test.images)).argmax(1).numpy()
    assert run.summary["accuracy"] == np.mean(guessed == test.labels) > 0.5, "chance is 0.1"
    classifier = run.summary["guarantees"]["classifier"]
    assert run.summary["formal"] and classifier["formal"]
    assert classifier["epsilon"] == run.summary["epsilon_max"] > 0
    assert "server's own" not in classifier["note"]
    baselines = run.summary["baselines"]
    assert run.summary["reconstruction_loss"] is None and baselines["raw_pixels"] is None
    assert set(baselines["random_encoder"]) == set(run.summary["leakage"]), "its leakage takes none"
    assert not any("val" in words for words in run.summary["data_findings"]["in_words"])
    assert "no other classifier and no reconstruction loss was measured" in text_of(run.path / "report.html")


def test_only_the_servers_own_work_depends_on_the_classifier(federate: Callable[..., Run]) -> None:
    head, regression = (federate(name, **TOGETHER, classifier=name) for name in ("head", "lr"))
    for file in ("hospitals.csv", "ledger.json", "encoder.safetensors"):
        assert (head.path / file).read_bytes() == (regression.path / file).read_bytes(), file
    assert head.summary["baselines"] == regression.summary["baselines"], "logistic regression in both"
    assert head.summary["accuracy"] != regression.summary["accuracy"]
    assert "logistic regression on the server's images" in compared_with(open_run(head.path))
    assert "the same classifier" in compared_with(open_run(regression.path))


def test_attacks_that_fit_something_to_public_images_say_that_there_are_none(
    federate: Callable[..., Run],
) -> None:
    run = opened(federate("none", **HEAD, public_records=0, num_server_rounds=1))
    for attack, words in (
        (membership_encoder.ATTACK, "the server has no images"),
        (membership_classifier.ATTACK, "a part of the noised sums"),
        (inversion_black_box.ATTACK, "the server has no images"),
    ):
        reasons = [str(attack.missing(run, threat_model)) for threat_model in attack.threat_models]
        assert any(words in reason for reason in reasons), attack.name
