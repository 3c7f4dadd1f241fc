"""How many labelled images the server has, and which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import SMALL, Run, write_npz

from fl_ppae.config import RunConfig
from fl_ppae.data.public import public_positions
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.hospital.ledgers import MAIN, site_of
from fl_ppae.models.build import check_released

SKEWED = np.repeat([0, 1, 2], [200, 30, 5])  # as in a file that is sorted by class


@pytest.mark.parametrize("count", [0, 1, 3, 12, 15, 60, 235])
def test_public_records_are_as_many_of_each_class_as_can_be(count: int) -> None:
    counts = np.bincount(SKEWED[public_positions(SKEWED, count, 0)], minlength=3)
    assert counts.sum() == count
    for of_class, available in zip(counts, (200, 30, 5), strict=True):
        assert of_class == available or of_class >= counts.max() - 1


def test_a_draw_in_file_order_would_not_be_balanced() -> None:
    assert np.bincount(SKEWED[:12], minlength=3).tolist() == [12, 0, 0]
    assert np.bincount(SKEWED[public_positions(SKEWED, 12, 0)]).tolist() == [4, 4, 4]


def test_public_records_depend_on_the_seed_and_grow_with_the_count() -> None:
    few, more = (set(public_positions(SKEWED, count, 1)) for count in (9, 30))
    assert few < more
    assert few != set(public_positions(SKEWED, 9, 2))
    assert set(public_positions(SKEWED, 9, -1)) == set(public_positions(SKEWED, 9, 0))


def test_every_use_of_the_servers_split_sees_the_public_records_alone(
    small: Callable[..., RunConfig],
) -> None:
    whole, few = resolve(small()), resolve(small(public_records=10))
    assert (len(whole.val), len(few.val)) == (33, 10)
    assert few.identities["val"].tolist() == [
        number
        for number, image in zip(whole.identities["val"], whole.val.images, strict=True)
        if any(np.array_equal(image, other) for other in few.val.images)
    ]
    assert len(few.train) == len(whole.train) and few.path == whole.path


def test_a_run_trains_its_classifier_on_the_public_records(federate: Callable[..., Run]) -> None:
    assert federate("few", public_records=10).summary["baselines"]["trained_on"] == "10 records"


def test_a_server_without_images_can_learn_from_encodings(federate: Callable[..., Run]) -> None:
    run = federate("none", public_records=0, share="encodings", dp_scope="none")
    assert run.summary["status"] == "completed"
    assert run.summary["baselines"]["random_encoder"]["reconstruction_loss"] is None
    assert run.summary["accuracy"] is not None


def test_too_many_or_too_few_public_records_are_refused(small: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match=r"public-records = 34, but .* has only 33 images"):
        resolve(small(public_records=34))
    with pytest.raises(UserError, match="needs one of each class, 10"):
        check_released(small(public_records=9), 9)
    check_released(small(public_records=10), 10)
    check_released(small(public_records=0, share="encodings"), 0)
    head = {"local_steps": 1, "objective": "task", "dp_scope": "autoencoder", "classifier": "head"}
    check_released(small(public_records=0, **head), 0)


def test_no_run_can_hide_images_from_a_hospitals_ledger(tmp_path: Path, federate: Callable[..., Run]) -> None:
    own = str(write_npz(tmp_path / "own.npz", seed=3))
    limits = {"max-epsilon": 100.0, "max-delta": 1e-3}
    node = {"partition-id": 0, "num-partitions": 1, "data-file": own, **limits}
    run = federate("run", nodes=[node], target_epsilon=50.0, public_records=10)
    assert run.summary["status"] == "completed"
    whole = resolve(RunConfig.from_flat({**SMALL, "data-file": own}))
    known = site_of(None, None).records(MAIN)
    images = np.concatenate([part.images for part in (whole.train, whole.val, whole.test)])
    assert len(known) == len(np.unique(images, axis=0))
