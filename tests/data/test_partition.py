"""Partitions are disjoint, complete, repeatable and skewed as configured; what a hospital sees of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.cache import Split
from fl_ppae.data.partition import natural_shares, partition, share_out
from fl_ppae.data.records import HospitalRecords, to_float
from fl_ppae.errors import UserError

KINDS = ["iid", "dirichlet", "pathological", "quantity-skew", "acquisition-shift"]
LABELS = np.random.default_rng(0).integers(0, 9, 3_000)


def config(kind: str, **keys: object) -> RunConfig:
    values = {key.replace("_", "-"): value for key, value in keys.items()}
    return RunConfig.from_flat({"partition": kind, "min-records": 1, **values})


def skew(shares: list[np.ndarray], labels: np.ndarray) -> float:
    """Mean total-variation distance of a hospital's classes from the whole split's."""
    whole = np.bincount(labels, minlength=9) / len(labels)
    parts = [np.bincount(labels[share], minlength=9) / len(share) for share in shares]
    return float(np.mean([np.abs(part - whole).sum() / 2 for part in parts]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_hospitals", [1, 2, 9, 20])
def test_shares_are_sorted_disjoint_and_repeatable(kind: str, num_hospitals: int) -> None:
    keys = config(kind, dirichlet_alpha=5.0)
    shares = partition(LABELS, keys, num_hospitals)
    again = partition(LABELS, keys, num_hospitals)
    other = partition(LABELS, config(kind, dirichlet_alpha=5.0, seed=7), num_hospitals)
    assert len(shares) == num_hospitals
    assert all((np.diff(share) > 0).all() for share in shares)
    assert all(np.array_equal(a, b) for a, b in zip(shares, again, strict=True))
    together = np.concatenate(shares)
    assert len(np.unique(together)) == len(together)
    if kind != "pathological" or num_hospitals >= 9:
        assert len(together) == len(LABELS)
    if num_hospitals > 1:
        assert any(not np.array_equal(a, b) for a, b in zip(shares, other, strict=True))


@pytest.mark.slow
def test_another_process_deals_the_same() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from fl_ppae.config import RunConfig\n"
        "from fl_ppae.data.partition import partition\n"
        "labels = np.random.default_rng(0).integers(0, 9, 3_000)\n"
        "for kind in ('dirichlet', 'pathological'):\n"
        "    keys = RunConfig.from_flat({'partition': kind, 'min-records': 1})\n"
        "    print(hashlib.md5(np.concatenate(partition(labels, keys, 5)).tobytes()).hexdigest())\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = [
        hashlib.md5(np.concatenate(partition(LABELS, config(kind), 5)).tobytes()).hexdigest()
        for kind in ("dirichlet", "pathological")
    ]
    assert there.stdout.split() == here
    assert there.stderr == ""


def test_a_smaller_alpha_is_more_skewed_and_iid_the_least() -> None:
    by_alpha = [
        np.mean(
            [
                skew(partition(LABELS, config("dirichlet", dirichlet_alpha=alpha, seed=seed), 6), LABELS)
                for seed in range(4)
            ]
        )
        for alpha in (0.3, 1.0, 10.0, 1000.0)
    ]
    assert by_alpha == sorted(by_alpha, reverse=True)
    assert skew(partition(LABELS, config("iid"), 6), LABELS) < by_alpha[1]


@pytest.mark.parametrize("classes", [1, 3, 9])
def test_a_pathological_hospital_has_exactly_its_number_of_classes(classes: int) -> None:
    shares = partition(LABELS, config("pathological", classes_per_hospital=classes), 9)
    assert [len(np.unique(LABELS[share])) for share in shares] == [classes] * 9


def test_quantity_skew_gives_hospital_h_h_plus_one_shares_of_mixed_classes() -> None:
    shares = partition(np.sort(LABELS), config("quantity-skew"), 5)
    assert [len(share) for share in shares] == [200, 400, 600, 800, 1_000]
    assert skew(shares, np.sort(LABELS)) < 0.1


def test_a_seed_of_minus_one_counts_as_zero() -> None:
    for kind in KINDS:
        a, b = (partition(LABELS, config(kind, dirichlet_alpha=5.0, seed=seed), 4) for seed in (-1, 0))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_hospital_with_too_few_records_is_named() -> None:
    with pytest.raises(UserError, match=r"hospital-0 would have 54 records.* min-records = 64; use fewer"):
        partition(LABELS, config("quantity-skew", min_records=64), 10)
    with pytest.raises(UserError, match=r"hospital-\d would have \d+ records.*larger dirichlet-alpha"):
        partition(LABELS, config("dirichlet", dirichlet_alpha=0.01, min_records=64), 10)


def test_the_impossible_is_refused() -> None:
    asks = [
        (config("pathological", classes_per_hospital=10), 3, "the data has 9 classes"),
        (config("iid"), 3_001, "3000 records are too few"),
        (config("iid"), 0, "at least 1"),
        (config("quantity-skew"), 100, "not possible"),
        (config("pathological", classes_per_hospital=9), 2_000, "not possible"),
    ]
    for keys, num_hospitals, message in asks:
        with pytest.raises(UserError, match=message) as refusal:
            partition(LABELS, keys, num_hospitals)
        assert "\n" not in str(refusal.value)


def test_the_whole_test_split_is_divided_evenly() -> None:
    for count, hospitals in ((10, 10), (7_180, 7), (101, 2)):
        shares = share_out(count, hospitals, seed=3)
        assert sorted(np.concatenate(shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert all(np.array_equal(a, b) for a, b in zip(shares, share_out(count, hospitals, 3), strict=True))
    with pytest.raises(UserError, match="test records are too few"):
        share_out(3, 4, seed=0)


def test_fifty_hospitals_of_a_full_size_split_take_seconds() -> None:
    labels = np.random.default_rng(0).integers(0, 9, 90_000)
    start = time.process_time()
    partition(labels, config("dirichlet"), 50)
    assert time.process_time() - start < 10


# Acquisition


@pytest.mark.parametrize("channels", [1, 3])
def test_a_shift_keeps_shape_and_range_and_treats_each_image_independently(channels: int) -> None:
    images = torch.rand(6, channels, 28, 28)
    images[0], images[1] = 0, 1
    for hospital in range(8):
        shift = hospital_shift(hospital, 8, seed=1)
        shifted = shift.apply(images)
        assert shifted.shape == images.shape
        assert shifted.dtype == torch.float32
        assert torch.isfinite(shifted).all()
        assert shifted.min() >= 0
        assert shifted.max() <= 1
        assert not torch.allclose(shifted, images, atol=0.01)
        assert torch.allclose(shift.apply(images[3:4]), shifted[3:4], atol=1e-6)
        assert shift.apply(images[:0]).shape == (0, channels, 28, 28)


def test_no_shift_changes_nothing() -> None:
    images = torch.rand(2, 3, 28, 28)
    assert torch.equal(NO_SHIFT.apply(images), images)


def test_shifts_differ_between_hospitals_repeat_and_cover_the_whole_range() -> None:
    for num_hospitals in (2, 5, 20):
        shifts = [hospital_shift(hospital, num_hospitals, seed=4) for hospital in range(num_hospitals)]
        assert shifts == [
            hospital_shift(hospital, num_hospitals, seed=4) for hospital in range(num_hospitals)
        ]
        assert len(set(shifts)) == num_hospitals
        places = sorted(int((shift.contrast - 0.8) / 0.4 * num_hospitals) for shift in shifts)
        assert places == list(range(num_hospitals))
    assert hospital_shift(0, 5, seed=4) != hospital_shift(0, 5, seed=5)


# A hospital's records


def test_a_hospital_sees_its_rows_in_order_as_floats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    split = Split(pixels, np.arange(20))
    records = HospitalRecords(split, np.array([3, 7, 11, 19]))
    assert len(records) == 4
    images = records.images()
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last), "the order in which they are stored"
    assert torch.equal(images, to_float(pixels)[[3, 7, 11, 19]])
    assert images[1, 2, 5, 6].item() == pytest.approx(pixels[7, 5, 6, 2] / 255)
    for positions in (slice(1, 3), np.array([2, 0]), np.array([], dtype=np.int64)):
        assert torch.equal(records.images(positions), images[positions])
        assert torch.equal(records.labels(positions), torch.tensor([3, 7, 11, 19])[positions])
    assert records.labels().dtype == torch.int64
    shift = hospital_shift(1, 3, seed=0)
    assert torch.equal(HospitalRecords(split, records.indices, shift).images(), shift.apply(images))


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 1e4])
@pytest.mark.parametrize("num_hospitals", [2, 10, 50])
def test_an_extreme_alpha_deals_every_record_or_says_that_it_can_not(
    alpha: float, num_hospitals: int
) -> None:
    try:
        shares = partition(LABELS, config("dirichlet", dirichlet_alpha=alpha), num_hospitals)
    except UserError as refusal:
        assert alpha < 1
        assert "\n" not in str(refusal)
        return
    assert (np.sort(np.concatenate(shares)) == np.arange(len(LABELS))).all()
    assert min(map(len, shares)) >= 1


PATIENTS = np.random.default_rng(2).integers(0, 400, len(LABELS)) * 7


@pytest.mark.parametrize("kind", KINDS)
def test_no_partition_divides_a_patient_and_each_keeps_every_record(kind: str) -> None:
    shares = partition(LABELS, config(kind, classes_per_hospital=9, dirichlet_alpha=5.0), 5, PATIENTS)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(len(LABELS)))
    held = [set(PATIENTS[share].tolist()) for share in shares]
    assert sum(map(len, held)) == len(set(PATIENTS.tolist()))


def test_patients_of_one_record_each_are_dealt_like_records() -> None:
    alone = np.random.default_rng(3).permutation(len(LABELS))
    as_patients = partition(LABELS[np.argsort(alone)], config("iid"), 5, np.arange(len(LABELS)))
    as_records = partition(LABELS[np.argsort(alone)], config("iid"), 5)
    assert all(np.array_equal(a, b) for a, b in zip(as_patients, as_records, strict=True))


def test_shares_of_the_test_split_divide_no_patient() -> None:
    shares = share_out(len(LABELS), 6, 0, PATIENTS)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(len(LABELS)))
    held = [set(PATIENTS[share].tolist()) for share in shares]
    assert sum(map(len, held)) == len(set(PATIENTS.tolist()))
    with pytest.raises(UserError, match="2 test patients are too few for 3 hospitals"):
        share_out(6, 3, 0, np.array([4, 4, 4, 9, 9, 9]))


def natural(
    hospitals: list[int] | None, patients: list[int] | None = None, count: int = 2
) -> list[list[int]]:
    keys = RunConfig.from_flat({"dataset": "custom", "data-file": "own.csv", "min-records": 2})
    named = None if hospitals is None else np.array(hospitals)
    shares = natural_shares(named, None if patients is None else np.array(patients), keys, count)
    return [share.tolist() for share in shares]


def test_a_natural_partition_is_what_the_data_say() -> None:
    assert natural([3, 0, 3, 0, 0]) == [[1, 3, 4], [0, 2]]
    assert natural([3, 0, 3, 0, 0], patients=[1, 2, 1, 2, 5]) == [[1, 3, 4], [0, 2]]


@pytest.mark.parametrize(
    ("hospitals", "patients", "count", "line"),
    [
        (None, None, 2, "needs a manifest with the column hospital"),
        ([0, -1, 1, -1], None, 2, "2 train records have no hospital"),
        ([0, 0, 1, 1], None, 3, "of 2 hospitals, but the federation has 3; use --hospitals 2"),
        ([0, 0, 1, 1, 1], [7, 8, 7, 8, 9], 2, "2 patients have train records in several hospitals"),
        ([0, 0, 0, 1], None, 2, "hospital-1 would have 1 records"),
    ],
)
def test_an_impossible_natural_partition_is_one_line(
    hospitals: list[int] | None, patients: list[int] | None, count: int, line: str
) -> None:
    with pytest.raises(UserError, match=line):
        natural(hospitals, patients, count)
