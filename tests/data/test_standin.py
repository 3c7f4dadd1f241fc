"""The stand-in: images in the shape of each dataset, always the same, with learnable classes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fl_ppae.data.registry import DATASETS
from fl_ppae.data.standin import stand_in


@pytest.mark.parametrize("name", DATASETS)
def test_the_stand_in_has_the_datasets_shape_and_is_the_same_each_time(name: str) -> None:
    spec = DATASETS[name]
    arrays, again, other = stand_in(spec), stand_in(spec), stand_in(spec, seed=1)
    for split, count in (("train", 4_000), ("val", 800), ("test", 1_000)):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images.shape == (count, spec.size, spec.size, spec.channels)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert set(np.unique(labels)) == set(range(spec.num_classes))
    assert all((arrays[key] == again[key]).all() for key in arrays)
    assert (arrays["test_images"] != other["test_images"]).any()


@pytest.mark.parametrize("name", ["pathmnist", "mnist"])
def test_raw_pixels_of_the_stand_in_help_but_do_not_suffice(name: str) -> None:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    arrays = stand_in(DATASETS[name])
    val = arrays["val_images"].reshape(800, -1) / 255
    test = arrays["test_images"].reshape(1_000, -1) / 255
    warnings.simplefilter("ignore", ConvergenceWarning)
    model = LogisticRegression(C=0.005, max_iter=40).fit(val, arrays["val_labels"])
    assert 0.45 < model.score(test, arrays["test_labels"]) < 0.8
