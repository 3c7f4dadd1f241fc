"""Hostile requests: a hospital declines them with a reason, pays nothing, sends nothing and tells nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hospital.asked import (
    SIZE,
    AskedHospital,
    extra_records,
    hostile_arrays,
    numbers_of,
    with_array,
    without,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fl_ppae.message_arrays import MAX_WEIGHT
from fl_ppae.messages import (
    ARRAYS,
    CLAIM,
    CONFIG,
    ENCODINGS,
    ENROL,
    EVALUATE,
    HELLO,
    LONGEST_TEXT,
    PROJECTION,
    TRAIN,
)
from fl_ppae.models.autoencoders import NAMES, build_autoencoder

Case = tuple[str, str, RecordDict]
BEYOND = [
    np.nan,
    np.inf,
    -np.inf,
    np.nextafter(np.float32(MAX_WEIGHT), np.float32(np.inf)),
    *(sign * 10.0**power for power in range(7, 39, 6) for sign in (1, -1)),
]
NO_INTEGERS: list[Any] = [None, "1", 1.0, True, [1], b"1", -1, 2**62]


def hostile_encoders(hospital: AskedHospital, kind: str) -> Iterator[Case]:
    honest = hospital.honest(kind)
    for name, array in honest[ARRAYS].items():
        for wrong, forged in hostile_arrays(array).items():
            yield f"{name} {wrong}", kind, with_array(honest, ARRAYS, name, forged)
        yield f"no {name}", kind, with_array(honest, ARRAYS, name, None)
        for value in BEYOND:
            numbers = array.numpy().copy()
            numbers.flat[-1] = value
            yield f"{name} {value:g}", kind, with_array(honest, ARRAYS, name, Array(numbers))
    more = Array(np.zeros(3, np.float32))
    yield "one more array", kind, with_array(honest, ARRAYS, "decoder.weight", more)
    yield "no encoder", kind, without(honest, ARRAYS)
    yield "no arrays", kind, RecordDict({**honest, ARRAYS: ArrayRecord({})})
    yield "config for an encoder", kind, RecordDict({**honest, ARRAYS: ConfigRecord({})})


def hostile_training(hospital: AskedHospital) -> Iterator[Case]:
    yield from hostile_encoders(hospital, TRAIN)
    for value in [*NO_INTEGERS, 0, 3]:
        yield f"round {value!r}", TRAIN, hospital.honest(TRAIN, **{"server-round": value})
    yield "no config", TRAIN, without(hospital.honest(TRAIN), CONFIG)
    yield "nothing", TRAIN, RecordDict()


def hostile_uploads(hospital: AskedHospital) -> Iterator[Case]:
    yield from hostile_encoders(hospital, ENCODINGS)
    for part in (None, "", "val", "../train", "TRAIN", 0, ["train"], b"train"):
        yield f"part {part!r}", ENCODINGS, hospital.honest(ENCODINGS, part=part)
    for chunk in NO_INTEGERS:
        yield f"chunk {chunk!r}", ENCODINGS, hospital.honest(ENCODINGS, chunk=chunk)
    honest = hospital.honest(ENCODINGS)
    for name, array in honest[PROJECTION].items():
        for wrong, forged in hostile_arrays(array).items():
            yield f"{name} {wrong}", ENCODINGS, with_array(honest, PROJECTION, name, forged)
        yield f"no {name}", ENCODINGS, with_array(honest, PROJECTION, name, None)
        for value in (np.nan, np.inf, -np.inf, 1e30, -1e30):
            numbers = np.full(array.shape, value, array.dtype)
            yield f"{name} {value:g}", ENCODINGS, with_array(honest, PROJECTION, name, Array(numbers))
    for clip_norm in (0.0, -1.0, 1e-300):
        forged = Array(np.asarray(np.float64(clip_norm)))
        yield f"clip {clip_norm:g}", ENCODINGS, with_array(honest, PROJECTION, "clip-norm", forged)
    yield "no projection", ENCODINGS, without(honest, PROJECTION)
    yield "no config", ENCODINGS, without(honest, CONFIG)


def check_declined(reply: Message, case: str) -> None:
    assert not reply.has_error(), case
    claim = reply.content[CLAIM]
    assert claim["status"] == "declined", case
    assert set(reply.content) == {CLAIM}, f"{case}: a reply that declines holds its claim alone"
    assert 0 < len(claim["reason"]) <= LONGEST_TEXT, case


@pytest.mark.parametrize("share", ["updates", "encodings", "updates+encodings"])
def test_a_hostile_request_for_training_is_declined_and_costs_nothing(tmp_path: Path, share: str) -> None:
    noised = {} if share != "updates" else {"encoding_noise_epsilon": 0.0, "label_epsilon": 0.0}
    hospital = AskedHospital(tmp_path / "a", share=share, **noised)
    for case, kind, content in hostile_training(hospital):
        check_declined(hospital.ask(kind, content), case)
        assert hospital.events == (), case
    assert not (hospital.state / "training.safetensors").exists()
    assert hospital.ask(TRAIN, hospital.honest(TRAIN)).content[CLAIM]["status"] == "trained"
    assert len(hospital.events) == 1, "the control"


def test_a_hostile_request_for_encodings_is_declined_and_costs_nothing(tmp_path: Path) -> None:
    hospital = AskedHospital(tmp_path / "a")
    hospital.train_all()
    spent = hospital.events
    for case, kind, content in hostile_uploads(hospital):
        check_declined(hospital.ask(kind, content), case)
        assert hospital.events == spent, case
    assert not list(hospital.state.glob("released-*"))
    reply = hospital.ask(ENCODINGS, hospital.honest(ENCODINGS))
    assert reply.content[ARRAYS]["encodings"].numpy().shape == (117, SIZE), "the control"
    assert len(hospital.events) == len(spent) + 2
    for chunk in (1, 7, 2**40):
        content = without(hospital.honest(ENCODINGS, chunk=chunk), ARRAYS)
        check_declined(hospital.ask(ENCODINGS, content), f"chunk {chunk} of 1")


def test_records_that_nobody_asked_for_change_nothing(tmp_path: Path) -> None:
    hospital = AskedHospital(tmp_path / "a")
    content = RecordDict({**hospital.honest(TRAIN), **extra_records()})
    reply = hospital.ask(TRAIN, content)
    assert reply.content[CLAIM]["status"] == "trained"
    assert set(reply.content) == {CLAIM, "metrics", ARRAYS}
    (event,) = hospital.events
    assert event.noise_multiplier == 4.0


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-38, 1e-20, 1.0, -MAX_WEIGHT, MAX_WEIGHT])
def test_every_weight_within_the_bound_is_trained_on(tmp_path: Path, value: float) -> None:
    hospital = AskedHospital(tmp_path / "a")
    content = hospital.honest(TRAIN)
    for name, array in content[ARRAYS].items():
        numbers = np.full(array.shape, value, np.float32)
        content = with_array(content, ARRAYS, name, Array(numbers))
    reply = hospital.ask(TRAIN, content)
    assert reply.content[CLAIM]["status"] == "trained"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 28, 28), (3, 64, 64)])
def test_weights_within_the_bound_encode_every_image_to_finite_numbers(
    name: str, image: tuple[int, int, int]
) -> None:
    """Otherwise a server could choose weights that overflow for one record, and learn from the refusal."""
    encoder = build_autoencoder(name, 0, image, 0).encoder
    for sign in (1, -1):
        weights = {
            key: torch.full_like(value, sign * MAX_WEIGHT) for key, value in encoder.state_dict().items()
        }
        encoder.load_state_dict(weights)
        with torch.inference_mode():
            encoded = encoder(torch.stack([torch.zeros(image), torch.ones(image)]))
        assert torch.isfinite(encoded).all()
    fill(encoder, 3e38)
    assert not torch.isfinite(encoder(torch.ones(1, *image))).all(), "the control"


def fill(encoder: torch.nn.Module, value: float) -> None:
    encoder.load_state_dict({name: torch.full_like(old, value) for name, old in encoder.state_dict().items()})


def everything_hostile(hospital: AskedHospital) -> Iterator[Case]:
    yield from hostile_training(hospital)
    yield from hostile_uploads(hospital)
    for kind in (HELLO, ENROL):
        yield kind, kind, RecordDict()
        yield f"{kind} with more", kind, extra_records()
    yield from hostile_encoders(hospital, EVALUATE)
    yield "unknown", "query.records", RecordDict()


def test_no_reply_to_a_hostile_request_depends_on_pixels_or_names_a_file(tmp_path: Path) -> None:
    """Two hospitals that differ in every image and in their paths answer alike."""
    hospitals = [AskedHospital(tmp_path / f"hospital-path-{seed}", seed) for seed in (1, 2)]
    for trained in (False, True):
        for hospital in hospitals:
            if trained:
                hospital.train_all()
        cases = [list(everything_hostile(hospital)) for hospital in hospitals]
        for (case, kind, content), (_, _, other) in zip(*cases, strict=True):
            replies = [hospitals[0].ask(kind, content), hospitals[1].ask(kind, other)]
            texts = [numbers_of(reply) for reply in replies]
            assert texts[0] == texts[1], case
            for forbidden in ("secret-patients", "hospital-path", str(tmp_path), "Traceback", "/"):
                assert not any(forbidden in text for text in texts[0]), case


def test_encodings_leave_only_after_the_last_round(tmp_path: Path) -> None:
    hospital = AskedHospital(tmp_path / "a")
    for server_round in (1, 2):
        reply = hospital.ask(ENCODINGS, hospital.honest(ENCODINGS))
        check_declined(reply, f"before round {server_round}")
        assert f"has reached round {server_round - 1}" in reply.content[CLAIM]["reason"]
        hospital.ask(TRAIN, hospital.honest(TRAIN, **{"server-round": server_round}))
        assert len(hospital.events) == server_round
    assert hospital.ask(ENCODINGS, hospital.honest(ENCODINGS)).content[CLAIM]["status"] == "ready"


def test_a_hospital_that_can_afford_no_further_round_has_finished_training(tmp_path: Path) -> None:
    hospital = AskedHospital(tmp_path / "a", target_epsilon=0.7)
    first = hospital.ask(TRAIN, hospital.honest(TRAIN))
    assert first.content[CLAIM]["status"] == "trained"
    second = hospital.ask(TRAIN, hospital.honest(TRAIN, **{"server-round": 2}))
    assert "above 0.7" in second.content[CLAIM]["reason"]
    assert hospital.ask(ENCODINGS, hospital.honest(ENCODINGS)).content[CLAIM]["status"] == "ready"


@pytest.mark.parametrize("allowed", [None, False, True])
def test_a_deployed_hospital_releases_its_test_part_only_if_its_operator_says_so(
    tmp_path: Path, allowed: bool | None
) -> None:
    node = {} if allowed is None else {"allow-test-encodings": allowed}
    hospital = AskedHospital(tmp_path / "a", node=node)
    claim = hospital.ask(ENROL, RecordDict()).content[CLAIM]
    assert claim["test-records"] == (60 if allowed else 0)
    hospital.train_all()
    reply = hospital.ask(ENCODINGS, hospital.honest(ENCODINGS, part="test"))
    if allowed:
        assert reply.content[ARRAYS]["encodings"].numpy().shape == (60, SIZE)
    else:
        check_declined(reply, "test part")
        assert "allow-test-encodings" in reply.content[CLAIM]["reason"]
        assert len(hospital.events) == 2


def test_the_number_of_test_records_leaves_only_where_encodings_are_shared(tmp_path: Path) -> None:
    plain = {"encoding_noise_epsilon": 0.0, "label_epsilon": 0.0}
    hospital = AskedHospital(tmp_path / "a", node={"allow-test-encodings": True}, share="updates", **plain)
    assert hospital.ask(ENROL, RecordDict()).content[CLAIM]["test-records"] == 0


def test_an_encoder_that_diverged_is_not_released_and_nothing_is_paid(tmp_path: Path) -> None:
    hospital = AskedHospital(tmp_path / "a", share="encodings", noise_multiplier=1e4, learning_rate=10.0)
    hospital.train_all()
    spoil(hospital.state / "training.safetensors")
    reply = hospital.ask(ENCODINGS, hospital.honest(ENCODINGS))
    check_declined(reply, "diverged")
    assert "diverged" in reply.content[CLAIM]["reason"]
    assert len(hospital.events) == 2


def spoil(path: Path) -> None:
    """Make one of the encoder's weights NaN, as training without bounds could."""
    with safe_open(path, "pt") as file:
        written = file.metadata()
    tensors = load_file(path)
    first = next(key for key in tensors if key.startswith("encoder/"))
    tensors[first].view(-1)[0] = torch.nan
    save_file(tensors, path, written)
