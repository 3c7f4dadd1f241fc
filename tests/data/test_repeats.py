"""What a data set holds twice, lacks or leaves blank is counted and said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.npz_files import write
from support import real_data

from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.identities import identities
from fl_ppae.data.npz import Arrays
from fl_ppae.data.repeats import Repeated, examine, repeated_records
from fl_ppae.data.sources import resolve

Resolve = Callable[[Arrays], Dataset]


def bloodmnist(file: Path) -> Dataset:
    return resolve(
        RunConfig.from_flat({"dataset": "bloodmnist", "data-source": "file", "data-file": str(file)})
    )


@pytest.fixture
def opened(tmp_path: Path) -> Resolve:
    return lambda arrays: bloodmnist(write(tmp_path / "made.npz", arrays))


@pytest.fixture
def sound() -> Arrays:
    """24 records a split, all different, of all eight classes."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (24, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(24) % 8
    return arrays


def test_a_sound_file_gives_nothing_to_say(opened: Resolve, sound: Arrays) -> None:
    found = examine(opened(sound))
    assert found.in_words() == []
    assert set(found.repeated.values()) == set(found.shared.values()) == set(found.blank.values()) == {0}


def test_the_official_bloodmnist_has_these_repeats() -> None:
    found = examine(bloodmnist(real_data("bloodmnist.npz")))
    assert found.repeated == {"train": 8, "val": 0, "test": 0}
    assert found.shared == {("train", "val"): 3, ("train", "test"): 5, ("val", "test"): 1}
    assert found.contradictory == 1
    assert set(found.blank.values()) == {0}
    assert set(found.absent.values()) == {()}
    assert found.in_words() == [
        "8 of 11959 train records repeat an earlier one",
        "3 images stand in both train and val",
        "5 images stand in both train and test: results on test flatter",
        "1 image stands in both val and test: results on test flatter",
        "1 image stands in records of different labels",
    ]


def test_test_images_that_are_those_of_val_are_counted(opened: Resolve, sound: Arrays) -> None:
    sound |= {f"test_{part}": sound[f"val_{part}"] for part in ("images", "labels")}
    assert examine(opened(sound)).in_words() == [
        "24 images stand in both val and test: results on test flatter"
    ]


def test_repeats_are_by_pixels_whatever_the_label(opened: Resolve, sound: Arrays) -> None:
    images = sound["train_images"]
    images[5] = images[3]  # another label
    images[[11, 19]] = images[3]  # the label of record 3
    images[20] = images[4]
    images[20, 27, 27, 2] ^= 1  # one bit in the last pixel: another image
    found = examine(opened(sound))
    assert found.repeated == {"train": 3, "val": 0, "test": 0}
    assert found.contradictory == 1


def test_absent_classes_are_named_with_what_that_means(opened: Resolve, sound: Arrays) -> None:
    sound["train_labels"] = np.where(sound["train_labels"] == 0, 1, sound["train_labels"])
    sound["test_labels"] = np.where(sound["test_labels"] >= 3, 1, sound["test_labels"])
    assert examine(opened(sound)).in_words() == [
        "no train record of class 0 (basophil): no hospital can teach it",
        "no test record of class 3 (immature granulocytes), class 4 (lymphocyte), class 5 (monocyte) and 2 "
        "more: accuracy says nothing about it, and AUC is the mean over the other classes",
    ]


def test_a_test_split_of_one_class_has_no_auc(opened: Resolve, sound: Arrays) -> None:
    sound["test_labels"] = np.full(24, 2)
    (line,) = examine(opened(sound)).in_words()
    assert line.endswith("all are of one class, so there is no AUC")


def test_blank_images_are_those_of_one_colour(opened: Resolve, sound: Arrays) -> None:
    sound["train_images"][0] = (10, 20, 30)
    sound["val_images"][[1, 2]] = 0
    sound["test_images"][3] = 255
    sound["test_images"][3, 0, 0, 0] = 254
    found = examine(opened(sound))
    assert found.blank == {"train": 1, "val": 2, "test": 0}
    assert "1 of 24 train images have one colour throughout" in found.in_words()


def test_equal_pixels_have_equal_identities_over_all_splits_and_no_others() -> None:
    rng = np.random.default_rng(1)
    pool = rng.integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    rows = {split: rng.integers(0, 6, 50) for split in ("train", "val", "test")}
    numbers = identities({split: pool[chosen] for split, chosen in rows.items()})
    every, drawn = np.concatenate(list(numbers.values())), np.concatenate(list(rows.values()))
    assert np.array_equal(every[:, None] == every, drawn[:, None] == drawn)


def test_repeated_records_are_grouped_by_who_holds_how_many() -> None:
    train = {"a": np.array([1, 1, 2, 3, 9]), "b": np.array([2, 4, 4, 4, 5]), "c": np.array([3, 6, 6, 6])}
    test = {"a": np.array([7, 8]), "b": np.array([9, 7]), "c": np.array([10])}
    assert set(repeated_records(train)) == {
        Repeated(1, (("a", 2, 0),)),
        Repeated(1, (("a", 1, 0), ("b", 1, 0))),
        Repeated(1, (("b", 3, 0),)),
        Repeated(1, (("a", 1, 0), ("c", 1, 0))),
        Repeated(1, (("c", 3, 0),)),
    }
    with_test = set(repeated_records(train, test)) - set(repeated_records(train))
    assert with_test == {Repeated(1, (("a", 1, 0), ("b", 0, 1))), Repeated(1, (("a", 0, 1), ("b", 0, 1)))}
    assert repeated_records({"a": np.arange(5), "b": np.arange(5, 9)}) == [], "control: disjoint"
    assert repeated_records({"a": np.array([1, 1, 2, 2])}) == [Repeated(2, (("a", 2, 0),))]
