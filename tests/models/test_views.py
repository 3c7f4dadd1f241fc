"""Encodings that don't depend on how an image is turned, and are still one for each image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import Run

from fl_ppae.config import RunConfig
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.hospital.fixed_codes import on_codes
from fl_ppae.hospital.simulated import in_dealt_order
from fl_ppae.models.augment import orientations
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.build import autoencoder_of, encoding_shape_of, local_model_of
from fl_ppae.models.encoding import encode
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.models.views import single_view, viewed

SIZES = {"train": 200, "test": 40}
KEYS = {"dataset": "bloodmnist", "autoencoder": "fc", "encoding-size": 16}


def test_a_viewed_encoding_is_the_mean_over_orientations_and_the_same_for_each() -> None:
    encoder = build_autoencoder("fc", 8, (3, 12, 12), seed=1).encoder
    images = torch.rand(5, 3, 12, 12)
    views = orientations(images)
    expected = torch.stack([encoder(view) for view in views]).mean(0)
    found = viewed(encoder, 8)
    torch.testing.assert_close(found(images), expected)
    for view in views:
        torch.testing.assert_close(found(view), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(encoder(views[1]), encoder(images), atol=1e-3), "the control"
    assert viewed(encoder, 1) is encoder is single_view(found) is single_view(encoder)


def test_images_with_a_right_way_up_are_refused() -> None:
    with pytest.raises(UserError, match=r"images of MNIST have a right way up; use 1"):
        encoding_shape_of(RunConfig.from_flat({"dataset": "mnist", "views": 8}))
    encoding_shape_of(RunConfig.from_flat({"dataset": "bloodmnist", "views": 8}))
    own = {"dataset": "custom", "image-shape": "3,28,30", "class-names": "a,b", "any-way-up": True}
    own |= {"data-source": "file", "data-file": "own.npz"}
    with pytest.raises(UserError, match="must be square"):
        encoding_shape_of(RunConfig.from_flat({**own, "views": 8}))


@pytest.fixture
def colour_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "colour.npz"
    images = {f"x_{part}": rng.integers(0, 256, (n, 28, 28, 3), np.uint8) for part, n in SIZES.items()}
    np.savez(path, **images, **{f"y_{part}": np.arange(n) % 8 for part, n in SIZES.items()})
    return path


def test_what_a_hospital_uploads_is_one_averaged_encoding_of_each_image(
    federate: Callable[..., Run], colour_file: Path
) -> None:
    run = federate(
        "run",
        dataset="bloodmnist",
        data_file=str(colour_file),
        views=8,
        share="updates+encodings",
        target_epsilon=50.0,
    )
    encoder = autoencoder_of(RunConfig.from_flat(KEYS)).encoder
    encoder.load_state_dict(load_file(run.path / "encoder.safetensors"))
    (released,) = run.path.glob("hospitals/hospital-0/released-*-train.npy")
    rows = np.load(run.path / "hospitals" / "hospital-0" / "train_records.npy")
    own = in_dealt_order(np.load(released), "hospital-0", "train", run.path)
    images = resolve(RunConfig.from_flat(read_json(run.path / "config.json")["config"])).train.images[rows]
    np.testing.assert_allclose(own, encode(viewed(encoder, 8), images), atol=1e-5)
    events = [event["mechanism"] for event in run.ledger["hospitals"]["hospital-0"]["events"]]
    assert sum("encoding" in event for event in events) <= 2, "one for each part, not one for each view"


def test_a_head_learns_on_averaged_codes() -> None:
    model = local_model_of(RunConfig.from_flat({**KEYS, "objective": "task"}))
    images = torch.rand(20, 3, 28, 28)
    held = _Held(images)
    _, codes = on_codes(model, held, OBJECTIVES["task"], views=8)
    assert np.allclose(codes.images().numpy(), encode(viewed(model.encoder, 8), images), atol=1e-5)
    _, single = on_codes(model, held, OBJECTIVES["task"])
    assert not np.allclose(codes.images().numpy(), single.images().numpy(), atol=1e-3)


class _Held:
    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, positions: slice | np.ndarray = slice(None)) -> torch.Tensor:
        return self.pixels[positions]

    def labels(self, positions: slice | np.ndarray = slice(None)) -> torch.Tensor:
        return torch.zeros(len(self.pixels), dtype=torch.int64)[positions]
