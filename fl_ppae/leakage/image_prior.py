"""What images look like: a variational autoencoder (arXiv:1312.6114) of the attacker's own images.

It starts as principal components and learns corrections to them, so that it is never worse than linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.leakage.inversion_network import Corrector
from fl_ppae.leakage.ranges import check_images, check_paired
from fl_ppae.models.seeding import seeded

_MOST_LATENTS = 128
_PIXEL_NOISE = 0.05  # standard deviation that the model leaves unexplained
_BATCH, _RATE, _WIDTH = 64, 1e-3, 32


@dataclass(frozen=True)
class ImagePrior:
    """Latents (N, L), about standard normal, and images (N, C, H, W)."""

    network: _Vae

    @torch.inference_mode()
    def latents(self, images: Tensor) -> Tensor:
        """Those that an image most likely has."""
        return torch.cat([self.network.posterior(part)[0] for part in images.split(_BATCH)]).clone()

    def images(self, latents: Tensor) -> Tensor:
        """Images with pixels about in [0, 1], not clipped; differentiable."""
        found: Tensor = self.network.decode(latents)
        return found


def fit_prior(images: Tensor, steps: int, seed: int = 0) -> ImagePrior:
    """Fit to images (N, C, H, W), floats in [0, 1], N at least 2, in `steps` of 64.

    Raises:
        Unmeasurable: fewer than two images, or pixels outside [0, 1].
    """
    check_images(images=images)
    check_paired(2, images=images)
    with seeded(seed):
        network = _Vae(images).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=max(steps, 2), pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        shown = images[torch.randint(len(images), (_BATCH,), generator=generator)]
        mean, log_variance = network.posterior(shown)
        noise = torch.randn(mean.shape, generator=generator)
        made = network.decode(mean + noise * (log_variance / 2).exp())
        error = F.mse_loss(made, shown, reduction="sum") / (2 * _PIXEL_NOISE**2)
        divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum() / 2
        optimiser.zero_grad()
        ((error + divergence) / len(shown)).backward()
        optimiser.step()
        schedule.step()
    return ImagePrior(network.eval().requires_grad_(False))


class _Vae(nn.Module):
    """Principal components of images in latents of variance 1, and corrections that start at zero."""

    centre: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        shape, flat = images.shape[1:], images.flatten(1).double()
        centre = flat.mean(0)
        _, spread, directions = torch.linalg.svd(flat - centre, full_matrices=False)
        count = min(_MOST_LATENTS, len(spread) - 1)
        deviation = (spread[:count] / (len(flat) - 1) ** 0.5).clamp(min=1e-3 * _PIXEL_NOISE).float()
        self.register_buffer("centre", centre.float())
        self.register_buffer("components", directions[:count].float())
        self.register_buffer("scale", deviation)
        self.log_variance = nn.Parameter(-(1 + (deviation / _PIXEL_NOISE) ** 2).log())
        self.seen = nn.Sequential(
            nn.Conv2d(shape[0], _WIDTH, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Flatten(),
            nn.LazyLinear(2 * count),
        )
        self.seen(images[:1])  # gives the last layer its size
        for parameter in self.seen[-1].parameters():
            nn.init.zeros_(parameter)
        self.correct = Corrector((count,), tuple(shape))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents (N, L) of images."""
        linear = (images.flatten(1) - self.centre) @ self.components.T / self.scale
        mean, log_variance = self.seen(images - 0.5).chunk(2, dim=1)
        return linear + mean, self.log_variance + log_variance.clamp(-5, 5)

    def decode(self, latents: Tensor) -> Tensor:
        linear = (latents * self.scale) @ self.components + self.centre
        corrected: Tensor = self.correct(latents, linear.unflatten(1, self.correct.image))
        return corrected
