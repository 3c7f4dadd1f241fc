"""Autoencoders, task heads and ResNet18: shapes, per-sample gradients, seeds, misfits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import prod

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from fl_ppae.errors import UserError
from fl_ppae.models.autoencoders import NAMES, build_autoencoder, build_head, encoding_shape
from fl_ppae.models.classifiers import as_image_shape, check_fit, resnet18
from fl_ppae.models.layers import Shuffled

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")  # images need no gradient

GRID = list(itertools.product(NAMES, (1, 3), (28, 32)))
SMALL = {
    "fc": 49,
    "fc-deep": 49,
    "conv": 0,
    "conv-image": 0,
    "residual": 0,
}  # encoding sizes that test quickly


def images(batch: int, channels: int, height: int, width: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, channels, height, width or height, generator=generator)


def nowhere_zero(model: nn.Module) -> nn.Module:
    """`model` without weights that are 0, behind which no gradient is seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter == 0] = 0.5
    return model


def assert_per_sample_gradients_are_those_of_single_records(
    model: nn.Module, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor
) -> None:
    """In float64, so that nothing but rounding of the last digits is forgiven."""
    model, x = nowhere_zero(model).double(), x.double()
    alone = []
    for one in x.split(1):
        model.zero_grad()
        loss(model(one), one).backward()
        alone.append([parameter.grad.clone() for parameter in model.parameters()])
    loss(GradSampleModule(model, loss_reduction="sum")(x), x).backward()
    for parameter, *grads in zip(model.parameters(), *alone, strict=True):
        assert parameter.grad_sample.abs().max() > 0
        torch.testing.assert_close(parameter.grad_sample, torch.stack(grads), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "channels", "size"), GRID)
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_shapes_and_ranges(name, channels, size, batch):
    model = build_autoencoder(name, 0, (channels, size, size), seed=1)
    x = images(batch, channels, size)
    assert model.encoder(x).shape == (batch, *encoding_shape(name, 0, (channels, size, size)))
    y = model(x)
    assert y.shape == x.shape
    assert torch.all((y >= 0) & (y <= 1))


@pytest.mark.parametrize(("size", "cells"), [(28, 7), (32, 8), (64, 8), (128, 8), (224, 7)])
def test_conv_encodes_images_of_any_size_in_feature_maps_of_7_or_8_pixels(size, cells):
    image = (1, size, size)
    model = build_autoencoder("conv", 0, image, seed=1)
    x = images(1, 1, size)
    assert model.encoder(x).shape[1:] == encoding_shape("conv", 0, image) == (16, cells, cells)
    assert model(x).shape == x.shape
    assert resnet18(16, cells, 3, seed=1)(model.encoder(x)).shape == (1, 3)


@pytest.mark.parametrize("size", [28, 64, 224])
def test_residual_codes_are_of_one_size_whatever_the_images(size):
    model = build_autoencoder("residual", 0, (3, size, size), seed=1)
    x = images(2, 3, size)
    assert model.encoder(x).shape == (2, 16)
    assert model(x).shape == x.shape


@pytest.mark.parametrize("name", ["fc", "fc-deep", "conv-image"])
def test_networks_that_grow_with_the_image_take_no_large_ones(name):
    assert prod(encoding_shape(name, 0, (3, 64, 64))) <= 3 * 64 * 64
    with pytest.raises(UserError, match="at most 16,384 numbers, but 3x128x128 are 49,152; use 'conv'"):
        build_autoencoder(name, 0, (3, 128, 128), seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_odd_and_oblong_images(name):
    model = build_autoencoder(name, 0, (1, 29, 34), seed=1)
    x = images(2, 1, 29, 34)
    assert model.encoder(x).shape[1:] == encoding_shape(name, 0, (1, 29, 34))
    assert model(x).shape == x.shape


@pytest.mark.parametrize(("name", "channels", "size"), GRID)
def test_per_sample_gradients_are_those_of_single_images(name, channels, size):
    encoding = encoding_shape(name, SMALL[name], (channels, size, size))
    model = build_autoencoder(name, SMALL[name], (channels, size, size), seed=1)
    for part in (model, model.encoder, model.decoder, build_head(encoding, 8, seed=1)):
        assert ModuleValidator.validate(part, strict=True) == []
    assert_per_sample_gradients_are_those_of_single_records(
        model, lambda output, target: (output - target).square().sum(), images(3, channels, size)
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_poisson_batch_trains(name):
    model = build_autoencoder(name, SMALL[name], (3, 28, 28), seed=1)
    wrapped = GradSampleModule(model, loss_reduction="sum")
    wrapped(images(0, 3, 28)).sum().backward()
    assert all(parameter.grad_sample.shape[0] == 0 for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_the_seed_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_autoencoder(name, SMALL[name], (3, 28, 28), seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    again = build_autoencoder(name, SMALL[name], (3, 28, 28), seed=1).state_dict()
    other = build_autoencoder(name, SMALL[name], (3, 28, 28), seed=2).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.state_dict().items())
    assert any(not torch.equal(value, other[key]) for key, value in first.state_dict().items())


def test_shuffling_is_pixel_shuffle():
    maps = torch.rand(2, 12, 5, 7)
    assert torch.equal(Shuffled(10, 14)(maps), nn.PixelShuffle(2)(maps))
    assert torch.equal(Shuffled(9, 13)(maps), nn.PixelShuffle(2)(maps)[..., :9, :13])


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("channels", "size"), itertools.product((1, 3), (28, 32)))
def test_default_conv_has_tens_of_thousands_of_parameters(channels, size):
    model = build_autoencoder("conv", 0, (channels, size, size), seed=1)
    assert encoding_shape("conv", 0, (channels, size, size)) == (16, size // 4, size // 4)
    assert 10_000 < parameters(model.encoder) < 50_000
    assert 10_000 < parameters(model.decoder) < 50_000


def test_default_conv_encoder_of_colour_images_is_counted_by_hand():
    encoder = build_autoencoder("conv", 0, (3, 28, 28), seed=1).encoder
    assert parameters(encoder) == (9 * 3 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 16


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("fc", 0, (784,)),
        ("fc", 10, (10,)),
        ("fc-deep", 98, (98,)),
        ("residual", 0, (16,)),
        ("residual", 64, (64,)),
        ("conv", 98, (2, 7, 7)),
        ("conv-image", 2352, (3, 28, 28)),
    ],
)
def test_encoding_sizes_that_fit(name, size, shape):
    assert encoding_shape(name, size, (3, 28, 28)) == shape
    assert build_autoencoder(name, size, (3, 28, 28), 0).encoder(images(1, 3, 28)).shape[1:] == shape


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [("conv", 100, "98 or 147"), ("conv", 3, "such as 49"), ("conv-image", 784, "0 or 2352")],
)
def test_a_size_that_does_not_fit_names_the_nearest(name, size, nearest):
    with pytest.raises(UserError) as error:
        encoding_shape(name, size, (3, 28, 28))
    message = str(error.value)
    assert "\n" not in message
    assert f"encoding-size = {size}" in message
    assert nearest in message


@pytest.mark.parametrize(
    ("image", "cells"), [((1, 28, 28), 49), ((3, 28, 28), 49), ((3, 32, 32), 64), ((1, 29, 34), 4 * 5)]
)
@pytest.mark.parametrize("size", [1, 48, 50, 63, 65, 97, 783, 1001])
def test_the_sizes_a_refusal_names_are_the_nearest_and_fit(image, cells, size):
    with pytest.raises(UserError) as error:
        encoding_shape("conv", size, image)
    named = [int(word) for word in str(error.value).split("such as ")[1].split(" or ")]
    fits = [k * cells for k in range(1, 100)]
    assert named == [k for k in fits if k < size][-1:] + [k for k in fits if k > size][:1]
    for nearest in named:
        assert prod(encoding_shape("conv", nearest, image)) == nearest


def test_an_unknown_autoencoder_is_named():
    with pytest.raises(UserError, match="'vae' is unknown"):
        encoding_shape("vae", 0, (3, 28, 28))


@pytest.mark.parametrize("shape", [(784,), (16, 7, 7), (3, 28, 28)])
def test_head_gives_scores_under_per_sample_gradients(shape):
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    assert build_head(shape, 8, seed=1)(x).shape == (5, 8)
    assert_per_sample_gradients_are_those_of_single_records(
        build_head(shape, 8, seed=1), lambda scores, _: scores.square().sum(), x
    )
    head = build_head(shape, 8, seed=1)
    GradSampleModule(head, loss_reduction="sum")(x[:0]).sum().backward()
    assert all(parameter.grad_sample.shape[0] == 0 for parameter in head.parameters())


def test_head_follows_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (build_head((16, 7, 7), 8, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.parametrize(("channels", "size"), [(16, 7), (3, 16), (1, 28), (3, 32), (3, 64)])
def test_resnet18_takes_every_size(channels, size):
    network = resnet18(channels, size, 5, seed=1)
    assert network(torch.rand(2, channels, size, size)).shape == (2, 5)
    assert ModuleValidator.validate(network, strict=True) == []
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_resnet18_follows_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (resnet18(3, 7, 5, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_what_fits_a_classifier():
    check_fit("lr", (10,))
    check_fit("resnet18", (16, 7, 7))
    check_fit("resnet18", (784,))
    assert as_image_shape((784,)) == (16, 7, 7)
    for size, nearest in ((100, "98 or 147"), (10, "such as 49")):
        with pytest.raises(UserError, match=nearest) as error:
            check_fit("resnet18", (size,))
        assert "\n" not in str(error.value)
        assert f"encoding-size = {size} " in str(error.value)
    with pytest.raises(UserError, match="'svm' is unknown"):
        check_fit("svm", (784,))
    with pytest.raises(UserError, match="takes"):
        check_fit("resnet18", (16, 7))


def test_codes_of_the_residual_network_are_scaled_and_scored_as_they_are():
    """A head that normalised each code would lose how far it is from 0."""
    model = build_autoencoder("residual", 8, (3, 28, 28), seed=1)
    assert 250_000 < parameters(model.encoder) < 350_000
    head = build_head((8,), 5, seed=1, scaled=model.scaled)
    codes = model.encoder(100 * images(4, 3, 28))
    assert torch.all(codes.abs() <= 1) and model.scaled
    assert not torch.allclose(head(codes), head(codes / 2))
    other = build_head((8,), 5, seed=1)
    torch.testing.assert_close(other(codes), other(codes / 2), rtol=1e-2, atol=1e-2)
