"""The network that shows what is reached without a federation, its training and its augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import records_of

from fl_ppae.data.records import HospitalRecords, JoinedRecords
from fl_ppae.models.augment import DRAWS, ORIENTATIONS, augmented, orientations
from fl_ppae.models.autoencoders import build_autoencoder, build_head
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.models.plain_training import PlainTraining, class_probabilities, train_plainly

CLASSES = 4
LOSS = OBJECTIVES["task"].loss
TRAINING = PlainTraining(steps=40, any_way_up=False, batch=32)


def stripes(count: int, seed: int) -> HospitalRecords:
    """Noisy 16 x 16 images with a bright stripe, whose place is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.integers(0, 120, (count, 16, 16, 1))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 90
    return records_of(images.astype(np.uint8), labels)


def accuracy(network: torch.nn.Module, tested: HospitalRecords) -> float:
    guesses = class_probabilities(network, tested, any_way_up=False).argmax(1)
    return float(np.mean(guesses == tested.labels().numpy()))


def fresh(seed: int = 3) -> torch.nn.Module:
    encoder = build_autoencoder("residual", 0, (1, 16, 16), seed).encoder
    return LocalModel(encoder, build_head((16,), CLASSES, seed, scaled=True))


def test_it_learns_a_small_set_but_not_from_wrong_labels() -> None:
    train, test = stripes(160, 0), stripes(100, 1)
    wrong = (train.split.labels + np.random.default_rng(0).integers(1, CLASSES, len(train))) % CLASSES
    misled = records_of(train.split.images, wrong)
    assert accuracy(train_plainly(fresh(), train, TRAINING, 0, LOSS), test) > 0.8
    assert accuracy(train_plainly(fresh(), misled, TRAINING, 0, LOSS), test) < 0.3


def test_a_training_repeats_bit_for_bit_and_depends_on_its_seed_and_start() -> None:
    train, short = stripes(40, 0), PlainTraining(steps=3, any_way_up=True, batch=16)

    def weights(network: torch.nn.Module, seed: int) -> torch.Tensor:
        trained = train_plainly(network, train, short, seed, LOSS)
        return torch.cat([value.flatten() for value in trained.state_dict().values()])

    before = torch.get_rng_state()
    first = weights(fresh(), 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    assert torch.equal(weights(fresh(), 0), first)
    assert not torch.equal(weights(fresh(), 1), first)
    assert not torch.equal(weights(fresh(4), 0), first)


def test_fewer_records_than_a_batch_are_enough_but_none_are_not() -> None:
    short = PlainTraining(steps=2, any_way_up=False)
    train_plainly(fresh(), stripes(5, 0), short, 0, LOSS)
    with pytest.raises(ValueError, match="no records"):
        train_plainly(fresh(), stripes(0, 0), short, 0, LOSS)


def drawn(count: int) -> torch.Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_orientations_are_the_eight_different_ones() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    views = orientations(image)
    assert views.shape == (ORIENTATIONS, 1, 1, 3, 3) and torch.equal(views[0], image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == ORIENTATIONS
    assert all(sorted(view.flatten().tolist()) == list(range(9)) for view in views)


@pytest.mark.parametrize("any_way_up", [True, False])
def test_augmented_images_are_turned_only_if_they_may_be(any_way_up: bool) -> None:
    corner = torch.zeros(200, 1, 16, 16)
    corner[:, :, :5, :5] = 0.5  # no shift moves it out of its quarter
    found = augmented(corner, drawn(200), any_way_up=any_way_up)
    assert found.shape == corner.shape and found.min() >= 0 and found.max() <= 1
    quarters = found.unflatten(2, (2, 8)).unflatten(4, (2, 8)).sum((1, 3, 5)).flatten(1)
    places = set(quarters.argmax(1).tolist())
    assert places == ({0, 1, 2, 3} if any_way_up else {0})
    assert len({round(float(image.max()), 4) for image in found}) > 50  # brightness


def test_every_orientation_is_drawn() -> None:
    image = torch.arange(256.0).view(1, 1, 16, 16).div(512)
    wanted = [view[0, 0, 6:10, 6:10].argsort() for view in orientations(image)]
    found = augmented(image.expand(300, -1, -1, -1), drawn(300), any_way_up=True)
    seen = {
        number
        for one in found[:, 0]
        for number, order in enumerate(wanted)
        if torch.equal(one[6:10, 6:10].argsort(), order)
    }
    assert seen == set(range(ORIENTATIONS))


def test_images_that_are_not_square_are_mirrored_but_not_turned() -> None:
    corner = torch.zeros(200, 1, 10, 16)
    corner[:, :, :4, :6] = 0.5  # no shift moves it out of its quarter
    found = augmented(corner, drawn(200), any_way_up=True)
    assert found.shape == corner.shape
    quarters = found.unflatten(2, (2, 5)).unflatten(4, (2, 8)).sum((1, 3, 5)).flatten(1)
    assert set(quarters.argmax(1).tolist()) == {0, 1, 2, 3}
    assert all(int((image > 0).sum(-1).max()) >= 5 for image in found[:, 0]), "it still lies"


def test_joined_records_are_those_of_all_holders_in_order() -> None:
    parts = (stripes(7, 0), stripes(0, 1), stripes(5, 2))
    joined = JoinedRecords(parts)
    everything = torch.cat([part.images() for part in parts])
    labels = torch.cat([part.labels() for part in parts])
    rows = np.array([11, 0, 7, 6, 0])
    assert len(joined) == 12
    assert torch.equal(joined.images(), everything) and torch.equal(joined.labels(), labels)
    assert torch.equal(joined.images(rows), everything[rows])
    assert torch.equal(joined.labels(rows), labels[rows])


def test_what_becomes_of_an_image_depends_on_its_own_draws_alone() -> None:
    images, draws = torch.rand(20, 3, 12, 12), drawn(20)
    together = augmented(images, draws, any_way_up=True)
    for number in range(20):
        own = slice(number, number + 1)
        assert torch.equal(together[own], augmented(images[own], draws[own], any_way_up=True))
    largest = torch.full((20, DRAWS), 1 - 2.0**-53, dtype=torch.float64)
    assert torch.isfinite(augmented(images, largest, any_way_up=True)).all()
