"""How each behaviour of an adversary changes its records or its update."""

from typing import Any

import numpy as np
import pytest
import torch
from golden import POISONS_RECORDS, POISONS_UPDATES
from support import records_of

from fl_ppae import adversary
from fl_ppae.adversary import BOOST, stamp, success_rate, update_to_send, used_records
from fl_ppae.config import RunConfig
from fl_ppae.data.records import HospitalRecords
from fl_ppae.privacy.randomness import seeded_stream

ALL = slice(None)


def config_of(behaviour: str, hospitals: str = "0", **changes: Any) -> RunConfig:
    kebab = {key.replace("_", "-"): value for key, value in changes.items()}
    values = {"adversary": behaviour, "adversary-hospitals": hospitals, "objective": "task", **kebab}
    return RunConfig.from_flat(values)


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    rng = np.random.default_rng(0)
    return records_of(rng.integers(0, 256, (400, 28, 28, 3)).astype(np.uint8), np.arange(400) % 9)


@pytest.mark.parametrize("behaviour", ["none", *POISONS_RECORDS, *POISONS_UPDATES])
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_only_records_of_the_named_hospitals_change(
    records: HospitalRecords, behaviour: str, index: int
) -> None:
    config = config_of(behaviour, "0,3") if behaviour != "none" else RunConfig.from_flat({})
    held = used_records(records, config, index)
    assert (held is records) == (behaviour not in POISONS_RECORDS or index not in (0, 3))
    assert len(held) == len(records)


@pytest.mark.parametrize(("dataset", "classes"), [("pathmnist", 9), ("bloodmnist", 8), ("mnist", 10)])
def test_a_label_flip_gives_every_record_another_class_and_leaves_images(dataset: str, classes: int) -> None:
    honest = records_of(np.zeros((classes, 28, 28, 3), np.uint8) + 7, np.arange(classes))
    held = used_records(honest, config_of("label-flip", dataset=dataset), 0)
    assert held.labels(ALL).tolist() == [*range(1, classes), 0]
    assert held.labels(ALL).dtype == torch.int64
    assert torch.equal(held.images(ALL), honest.images(ALL))


def test_a_backdoor_stamps_about_half_and_gives_those_and_only_those_the_target_class(
    records: HospitalRecords,
) -> None:
    held = used_records(records, config_of("backdoor"), 0)
    before, after = records.images(ALL), held.images(ALL)
    stamped = (before != after).flatten(1).any(dim=1)
    assert 0.4 < float(stamped.float().mean()) < 0.6
    assert torch.equal(after[stamped], stamp(before[stamped]))
    assert (held.labels(ALL)[stamped] == adversary.TARGET_CLASS).all()
    assert torch.equal(held.labels(ALL)[~stamped], records.labels(ALL)[~stamped])
    assert set(records.labels(ALL)[stamped].tolist()) == set(range(9)), "of all classes"


@pytest.mark.parametrize("behaviour", POISONS_RECORDS)
def test_poisoned_records_do_not_depend_on_how_they_are_read(
    records: HospitalRecords, behaviour: str
) -> None:
    config = config_of(behaviour)
    once, again = (used_records(records, config, 0) for _ in range(2))
    for positions in (np.array([5, 3, 399]), np.array([], int), slice(10, 20)):
        assert torch.equal(once.images(positions), again.images(ALL)[positions])
        assert torch.equal(once.labels(positions), again.labels(ALL)[positions])


def test_two_hospitals_and_two_seeds_stamp_different_records(records: HospitalRecords) -> None:
    asked = [(0, 42), (1, 42), (0, 7)]
    labels = [
        used_records(records, config_of("backdoor", "0,1", seed=seed), i).labels(ALL) for i, seed in asked
    ]
    assert len({tuple(each.tolist()) for each in labels}) == 3
    assert torch.equal(
        used_records(records, config_of("backdoor", seed=-1), 0).labels(ALL).unique(), torch.arange(9)
    )


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (3, 3, 32, 32), (0, 3, 28, 28)])
def test_the_trigger_is_a_checkerboard_in_the_corner_and_nothing_else_changes(shape: tuple[int, ...]) -> None:
    images = torch.full(shape, 0.5)
    stamped = stamp(images)
    corner = stamped[:, :, -4:, -4:]
    assert torch.equal(
        corner, (torch.arange(4)[:, None] + torch.arange(4)).remainder(2).expand_as(corner).float()
    )
    stamped[:, :, -4:, -4:] = 0.5
    assert torch.equal(stamped, images)


def test_success_counts_images_of_other_classes_only() -> None:
    labels = np.array([0, 0, 1, 2, 3, 4])
    assert success_rate(np.array([0, 0, 0, 2, 3, 4]), labels) == 0.25
    assert success_rate(np.zeros(6), labels) == 1.0
    assert success_rate(labels, labels) == 0.0
    assert np.isnan(success_rate(np.zeros(2), np.zeros(2)))


def states(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    received = {"weight": torch.randn(30, 20, generator=rng), "bias": torch.zeros(30)}
    return received, {
        name: old + 0.01 * torch.randn(old.shape, generator=rng) for name, old in received.items()
    }


def moved(received: dict[str, torch.Tensor], sent: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([(sent[name] - received[name]).flatten() for name in received])


def sent_by(behaviour: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The honest update and that of this behaviour, as differences from the received encoder."""
    received, trained = states()
    sent = update_to_send(behaviour, received, trained, seeded_stream(seed))
    assert {name: (one.shape, one.dtype) for name, one in sent.items()} == {
        name: (one.shape, one.dtype) for name, one in trained.items()
    }
    return moved(received, trained), moved(received, sent)


@pytest.mark.parametrize("behaviour", ["none", *POISONS_RECORDS])
def test_behaviours_that_do_not_change_updates_send_the_honest_one(behaviour: str) -> None:
    honest, sent = sent_by(behaviour)
    assert torch.equal(honest, sent)


@pytest.mark.parametrize(("behaviour", "factor"), [("sign-flip", -BOOST), ("scaled", BOOST)])
def test_a_sign_flip_and_a_scaled_update_are_multiples_of_the_honest_one(
    behaviour: str, factor: float
) -> None:
    honest, sent = sent_by(behaviour)
    torch.testing.assert_close(sent, factor * honest, rtol=1e-3, atol=1e-5)


def test_a_random_update_is_as_long_as_the_boosted_honest_one_and_unrelated_to_it() -> None:
    honest, sent = sent_by("random")
    assert float(sent.norm()) == pytest.approx(BOOST * float(honest.norm()), rel=1e-3)
    assert abs(float(torch.cosine_similarity(honest, sent, dim=0))) < 0.1
    assert not torch.equal(sent, sent_by("random", seed=1)[1])


def test_a_free_rider_sends_the_received_update_with_a_thousandth_of_noise() -> None:
    received, _ = states()
    _, sent = sent_by("free-rider")
    size = float(received["weight"].square().mean().sqrt())
    assert float(sent[:600].square().mean().sqrt()) == pytest.approx(1e-3 * size, rel=0.1)
    assert not sent[600:].any(), "an array of zeros has no size"
