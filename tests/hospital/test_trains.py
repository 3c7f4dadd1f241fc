"""What the key `trains` leaves fixed neither learns nor leaves, and can't break clipping, whatever it is."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hospital.test_hostile_weights import hostile
from hospital.test_physical_batches import CLASSES, FORMAL, farthest, model_of, terms_of
from support import records_of

from fl_ppae.config import RunConfig
from fl_ppae.data.records import HospitalRecords, Positions, Records
from fl_ppae.hospital import fixed_codes
from fl_ppae.hospital.fixed_codes import on_codes
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.physical_batches import FULL
from fl_ppae.hospital.rounds import LocalTraining
from fl_ppae.hospital.training import LocalTrainer, TrainingTerms
from fl_ppae.models.autoencoders import NAMES
from fl_ppae.models.build import shared_shapes_of, update_shapes_of
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.randomness import streams

TASK = OBJECTIVES["task"]
STEP = {"local-steps": 1, "objective": "task", "dp-scope": "autoencoder"}


def records(count: int = 16, seed: int = 3) -> HospitalRecords:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 12, 12, 3), np.uint8)
    return records_of(images, rng.integers(0, CLASSES, count))


@pytest.mark.parametrize(("name", "objective"), [("conv", "reconstruction"), ("residual", "task")])
def test_only_the_encoders_last_layer_and_the_partner_move(name: str, objective: str) -> None:
    model = model_of(name, objective)
    before = copy.deepcopy(model.state_dict())
    terms = replace(terms_of(objective, "autoencoder"), trains="last")
    LocalTraining(model, records(), terms, lambda draw: streams(1, 0, draw)).train(1)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    encoder = [key for key in before if key.startswith("encoder.")]
    assert moved == {*encoder[-2:], *(key for key in before if key.startswith("partner."))}
    assert encoder[-2:] == [f"{encoder[-1].removesuffix('.bias')}.{kind}" for kind in ("weight", "bias")]


@pytest.mark.parametrize("name", ["fc-deep", "conv", pytest.param("residual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("scope", FORMAL)
def test_hostile_weights_behind_what_learns_move_the_sum_by_at_most_the_clipping_norm(
    name: str, scope: str
) -> None:
    terms = replace(terms_of("task", scope, max_grad_norm=1e-3), trains="last")
    for number, model in enumerate(hostile(model_of(name, "task"))):
        assert farthest(model, records(), terms) <= 1, number


@pytest.mark.parametrize("name", ["fc", "conv", pytest.param("residual", marks=pytest.mark.slow)])
def test_under_hostile_encoders_one_record_moves_the_heads_sum_by_at_most_the_clipping_norm(
    name: str,
) -> None:
    terms = replace(terms_of("task", "autoencoder"), trains="head")
    everybody, fewer = records(), records()
    fewer = HospitalRecords(fewer.split, fewer.indices[1:])
    for number, model in enumerate(hostile(model_of(name, "task"))):
        sums = []
        for held in (everybody, fewer):
            head, codes = on_codes(model, held, TASK)
            sums.append(clipped(head, codes, terms))
        distance = torch.stack([(a - b).square().sum() for a, b in zip(*sums, strict=True)]).sum().sqrt()
        assert float(distance) <= terms.max_grad_norm, number


def clipped(model: LocalModel, held: Records, terms: TrainingTerms) -> list[torch.Tensor]:
    trainer = LocalTrainer(model, terms, expected_batch=4.0)
    found = trainer.clipped_sums(held, np.arange(len(held)))
    trainer.close()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_head_on_codes_learns_what_it_learns_behind_its_encoder(name: str) -> None:
    terms = replace(terms_of("task", "autoencoder"), trains="head", noise_multiplier=1e-9)
    model = model_of(name, "task")
    behind, _ = one_step(copy.deepcopy(model), records(40), terms, streams(1, 0, 1))
    on, _ = one_step(*on_codes(model, records(40), TASK), terms, streams(1, 0, 1))
    for one, other in zip(behind, on, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)
    assert [tuple(part.shape) for part in on] == [tuple(p.shape) for p in model.partner.parameters()]
    assert max(float(part.abs().max()) for part in on) > 1e-5, "the control"


def test_codes_are_computed_once_for_each_encoder_and_each_hospitals_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fixed_codes, "_codes", {})
    encoded: list[int] = []
    model, real = model_of("fc", "task"), fixed_codes._encoded
    monkeypatch.setattr(fixed_codes, "_encoded", lambda *args: encoded.append(1) or real(*args))
    _, first = on_codes(model, records(), TASK)
    with torch.no_grad():
        model.partner[-1].bias.add_(1)
    _, again = on_codes(model, records(), TASK)
    assert torch.equal(first.images(), again.images()) and len(encoded) == 1
    _, others = on_codes(model, records(seed=4), TASK)
    assert not torch.equal(first.images(), others.images()) and len(encoded) == 2
    with torch.no_grad():
        model.encoder[-2].bias.add_(1)
    _, moved = on_codes(model, records(), TASK)
    assert not torch.equal(first.images(), moved.images()) and len(encoded) == 3


def test_codes_are_made_of_a_batch_of_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images a hospital has, few are in memory as floats."""
    held, reads = records(600), []
    read = HospitalRecords.images

    def watched(self: HospitalRecords, positions: Positions = slice(None)) -> torch.Tensor:
        images = read(self, positions)
        reads.append(len(images))
        return images

    monkeypatch.setattr(HospitalRecords, "images", watched)
    _, codes = on_codes(model_of("fc", "task"), held, TASK)
    assert len(codes) == 600
    assert sum(reads) >= 2 * 600, "control: all are read, once for the digest and once for the codes"
    assert max(reads) <= FULL["cpu"]


@pytest.mark.parametrize(
    ("keys", "leaves"),
    [
        ({"trains": "all"}, [""]),
        ({"trains": "last"}, ["5."]),
        ({"trains": "last", **STEP}, ["encoder.5.", "partner."]),
        ({"trains": "head", **STEP}, ["partner."]),
    ],
)
def test_an_update_holds_what_learns_and_the_server_sends_the_rest_too(
    keys: dict[str, object], leaves: list[str]
) -> None:
    config = RunConfig.from_flat(keys)
    update, sent = update_shapes_of(config), shared_shapes_of(config)
    assert update.keys() <= sent.keys()
    assert {name for name in sent if name.startswith(tuple(leaves))} == set(update)
    assert (len(update) < len(sent)) == (keys["trains"] != "all")
