"""SSIM with gradients is scikit-image's SSIM, and can be trained for."""

from __future__ import annotations

import pytest
import torch

from fl_ppae.leakage.image_quality import image_quality
from fl_ppae.leakage.ssim import ssim


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 28, 28), (3, 20, 31)])
def test_it_agrees_with_scikit_image(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, noise = torch.rand(2, 6, *shape, generator=generator, dtype=torch.float64)
    for share in (0.0, 0.3, 1.0):
        right = (1 - share) * left + share * noise
        torch.testing.assert_close(
            ssim(left, right).numpy(), image_quality(left, right).ssim, atol=1e-9, rtol=0
        )


def test_descending_it_brings_an_image_nearer() -> None:
    wanted = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    made = torch.full_like(wanted, 0.5).requires_grad_()
    optimiser = torch.optim.Adam([made], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        (1 - ssim(made, wanted).mean()).backward()
        optimiser.step()
    assert ssim(made, wanted).min() > 0.9
