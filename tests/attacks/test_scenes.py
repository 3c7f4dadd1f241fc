"""What is attacked and what the attacker holds: as the run released it, and never the same images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from attacks.audits import opened
from safetensors.torch import load_file
from support import Run

from fl_ppae.attacks import needs, scenes
from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, SERVER_SPLIT
from fl_ppae.attacks.audited_run import Effort
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.encoding import encode


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
    assert "STRONGER" in scenes.white_box(opening, SERVER_SPLIT).threat
    assert "STRONGER" not in scenes.black_box(opening, COLLUDING_HOSPITAL).threat


def test_uploads_of_an_adversary_are_paired_with_the_images_and_labels_that_it_made_up(
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


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_attackers_of_noised_uploads_know_all_but_the_noise(federate: Callable[..., Run], share: str):
    noised = {"encoding_noise_epsilon": 200.0, "projection_size": 8}  # little: what is known shows
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
