"""Per-sample gradients: Opacus's numbers, at any precision clipped to the norm, and nothing left behind."""

import copy
import itertools
import math

import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fl_ppae.models.autoencoders import NAMES, build_autoencoder, build_head
from fl_ppae.privacy.clipping import clipped_sum, per_sample_norms
from fl_ppae.privacy.per_sample import Dense, Outer, PerSampleGradients, half_precision

IMAGES = {"small": (1, 9, 9), "colour": (3, 8, 8)}
LAYERS = {
    "conv": nn.Conv2d(3, 5, 3, padding=1),
    "strided": nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "odd": nn.Conv2d(3, 4, (2, 5), stride=(1, 2), padding=(0, 2), bias=False),
    "unpadded": nn.Conv2d(3, 2, 1),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(192, 7)),
    "unbiased": nn.Sequential(nn.Flatten(), nn.Linear(192, 3, bias=False)),
    "normalised": nn.Sequential(nn.GroupNorm(1, 3), nn.Flatten(), nn.GroupNorm(4, 192)),
}


def opacus(module: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The reference: per-sample gradients of the sum of squares, one (N, *shape) a parameter."""
    wrapped = GradSampleModule(copy.deepcopy(module), loss_reduction="sum")
    wrapped(inputs.contiguous()).square().sum().backward()
    return [parameter.grad_sample for parameter in wrapped.parameters()]  # type: ignore[misc]


def ours(module: nn.Module, inputs: Tensor, *, bfloat16: bool = False) -> list[Dense | Outer]:
    module = copy.deepcopy(module)
    gradients = PerSampleGradients(module, bfloat16=bfloat16)
    with half_precision(bfloat16):
        outputs = module(inputs)
    outputs.float().square().sum().backward()
    return gradients.take()


def inputs_of(shape: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def one_by_one(gradients: list[Dense | Outer], count: int) -> list[Tensor]:
    """(N, *shape) each, by asking for the sum of each record alone."""
    records = torch.eye(count)
    return [torch.stack([part.weighted_sum(only).float() for only in records]) for part in gradients]


@pytest.mark.parametrize(("name", "count"), itertools.product(LAYERS, (1, 2, 7)))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_layers_gradients_are_opacus_own(name: str, count: int, layout: torch.memory_format) -> None:
    inputs = inputs_of((3, 8, 8), count).contiguous(memory_format=layout)
    expected = opacus(LAYERS[name], inputs)
    found = ours(LAYERS[name], inputs)
    torch.testing.assert_close(one_by_one(found, count), expected, rtol=1e-4, atol=1e-4)
    norms = torch.stack([part.flatten(1).square().sum(1) for part in expected]).sum(0).sqrt()
    torch.testing.assert_close(per_sample_norms(found).float(), norms, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "image"), itertools.product(NAMES, IMAGES.values()))
def test_an_autoencoders_clipped_sum_is_that_of_opacus_gradients(
    name: str, image: tuple[int, int, int]
) -> None:
    size = 20 if name.startswith("fc") else 0
    autoencoder = build_autoencoder(name, size, image, seed=1)
    inputs = inputs_of(image, 11).sigmoid()
    for bound in (1e-3, 1.0, 1e3):
        expected = clipped_sum(opacus(autoencoder, inputs), bound)
        found = clipped_sum(ours(autoencoder, inputs), bound)
        torch.testing.assert_close(found.norms, expected.norms, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.total, expected.total, rtol=1e-3, atol=1e-4 * bound)


def test_the_task_heads_gradients_are_opacus_own() -> None:
    head = build_head((16, 7, 7), 8, seed=0)
    inputs = inputs_of((16, 7, 7), 5)
    torch.testing.assert_close(one_by_one(ours(head, inputs), 5), opacus(head, inputs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "bfloat16"), itertools.product(NAMES, (False, True)))
@pytest.mark.parametrize("bound", [1e-3, 0.1, 10.0])
def test_one_record_adds_at_most_the_clipping_norm_at_any_precision(
    name: str, bfloat16: bool, bound: float
) -> None:
    """No slack: what is normed is what is summed, and the margin of clipping covers float32."""
    size = 20 if name.startswith("fc") else 0
    autoencoder = build_autoencoder(name, size, (3, 8, 8), seed=2)
    for seed in range(4):
        gradients = ours(autoencoder, 5 * inputs_of((3, 8, 8), 1, seed), bfloat16=bfloat16)
        total = clipped_sum(gradients, bound).total
        assert math.sqrt(sum(float(part.double().square().sum()) for part in total)) <= bound


@pytest.mark.parametrize("bfloat16", [False, True])
def test_removing_a_record_moves_the_sum_by_at_most_the_clipping_norm(bfloat16: bool) -> None:
    autoencoder = build_autoencoder("conv", 0, (3, 8, 8), seed=2)
    inputs = 3 * inputs_of((3, 8, 8), 16)
    bound = 0.05
    total = clipped_sum(ours(autoencoder, inputs, bfloat16=bfloat16), bound).total
    for record in range(16):
        rest = torch.cat([inputs[:record], inputs[record + 1 :]])
        neighbour = clipped_sum(ours(autoencoder, rest, bfloat16=bfloat16), bound).total
        moved = [a.double() - b.double() for a, b in zip(total, neighbour, strict=True)]
        assert math.sqrt(sum(float(part.square().sum()) for part in moved)) <= bound * (1 + 16e-6)


def test_bfloat16_is_close_to_float32_and_not_the_same() -> None:
    autoencoder = build_autoencoder("conv", 0, (3, 28, 28), seed=2)
    inputs = inputs_of((3, 28, 28), 8).sigmoid()
    exact, rounded = (
        clipped_sum(ours(autoencoder, inputs, bfloat16=kind), 1e9).total for kind in (False, True)
    )
    whole, other = (torch.cat([part.flatten() for part in total]) for total in (exact, rounded))
    assert torch.nn.functional.cosine_similarity(whole, other, dim=0) > 0.999
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_record_that_is_not_finite_adds_nothing_and_spoils_nothing(wrong: float) -> None:
    for name in ("conv", "linear"):
        inputs = inputs_of((3, 8, 8), 4)
        inputs[2] = wrong
        found = clipped_sum(ours(LAYERS[name], inputs), 1.0).total
        kept = inputs_of((3, 8, 8), 4)[[0, 1, 3]]
        expected = clipped_sum(ours(LAYERS[name], kept), 1.0).total
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_fewer_records_than_before_see_nothing_of_those_before() -> None:
    module = copy.deepcopy(LAYERS["conv"])
    gradients = PerSampleGradients(module, bfloat16=False)
    module(inputs_of((3, 8, 8), 9, seed=1)).square().sum().backward()
    gradients.take()
    inputs = inputs_of((3, 8, 8), 2)
    module(inputs).square().sum().backward()
    expected = opacus(LAYERS["conv"], inputs)
    torch.testing.assert_close(one_by_one(gradients.take(), 2), expected, rtol=1e-4, atol=1e-4)


def test_a_module_is_given_back_as_it_was() -> None:
    module = copy.deepcopy(LAYERS["conv"])
    gradients = PerSampleGradients(module, bfloat16=False)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    gradients.remove()
    assert all(parameter.requires_grad for parameter in module.parameters())
    module(inputs_of((3, 8, 8), 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert not module._forward_hooks


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 4, 2),
    ],
)
def test_a_layer_whose_gradients_it_does_not_know_is_refused(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match="no per-sample gradients of"):
        PerSampleGradients(nn.Sequential(nn.Linear(2, 2), layer), bfloat16=False)


def test_a_tied_weight_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ELU(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    with pytest.raises(TypeError, match="shares its weight"):
        PerSampleGradients(module, bfloat16=False)


def test_a_frozen_parameter_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].bias.requires_grad_(False)
    with pytest.raises(TypeError, match="its bias is frozen"):
        PerSampleGradients(module, bfloat16=False)


def test_a_layer_used_twice_is_refused() -> None:
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer, nn.ELU(), layer)
    gradients = PerSampleGradients(module, bfloat16=False)
    with pytest.raises(TypeError, match="used twice"):
        module(torch.ones(3, 4))
    gradients.remove()


def test_a_second_forward_pass_without_gradients_is_not_a_second_use() -> None:
    module = copy.deepcopy(LAYERS["conv"])
    gradients = PerSampleGradients(module, bfloat16=False)
    inputs = inputs_of((3, 8, 8), 3)
    with torch.no_grad():
        module(inputs)
    for _ in range(2):
        module(inputs).square().sum().backward()
        found = gradients.take()
    torch.testing.assert_close(one_by_one(found, 3), opacus(LAYERS["conv"], inputs), rtol=1e-4, atol=1e-4)


def test_a_linear_layer_over_a_sequence_is_refused() -> None:
    module = nn.Linear(4, 2)
    gradients = PerSampleGradients(module, bfloat16=False)
    with pytest.raises(TypeError, match="inputs of shape"):
        module(torch.ones(3, 5, 4))
    gradients.remove()
