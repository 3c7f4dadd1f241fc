"""The Fisher information of an encoding with Gaussian noise, against linear maps whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fl_ppae.leakage.fisher import fisher_leakage

PIXELS = 3 * 8 * 8


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("noise", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("numbers", [1, 5, PIXELS])
def test_a_linear_map_has_the_squares_of_its_weights(numbers: int, noise: float) -> None:
    weights = torch.randn(PIXELS, numbers, generator=torch.Generator().manual_seed(1))
    found = fisher_leakage(lambda x: x.flatten(1) @ weights, images(300), noise)
    expected = weights.double().square().sum().item() / (noise**2 * PIXELS)
    torch.testing.assert_close(found, torch.full((300,), expected, dtype=torch.float64), rtol=1e-4, atol=0)


def test_the_bound_is_reached_by_the_best_unbiased_attacker_of_an_orthogonal_map() -> None:
    mix = torch.linalg.qr(torch.randn(PIXELS, PIXELS, generator=torch.Generator().manual_seed(2)))[0]
    x, noise = images(2000).flatten(1), 0.3
    seen = x @ mix + noise * torch.randn(2000, PIXELS, generator=torch.Generator().manual_seed(3))
    error = (seen @ mix.T - x).square().mean().item()
    bound = 1 / fisher_leakage(lambda one: one.flatten(1) @ mix, images(10), noise).mean().item()
    assert error == pytest.approx(bound, rel=0.02)


def test_the_information_is_each_images_own_also_through_a_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 6), nn.Tanh()).requires_grad_(False)
    together = fisher_leakage(network, images(5), 1.0)
    for index, image in enumerate(images(5)):
        jacobian = torch.autograd.functional.jacobian(lambda x: network(x[None])[0], image)
        assert together[index].item() == pytest.approx(jacobian.square().sum().item() / PIXELS, rel=1e-4)


def test_an_encoding_of_nothing_leaks_nothing() -> None:
    assert fisher_leakage(lambda x: 0 * x.flatten(1)[:, :2], images(3), 1.0).tolist() == [0, 0, 0]
