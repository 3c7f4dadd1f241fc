"""Generative attackers: what an encoding says is looked for among images that a prior knows.

Direct: the encoding's latents by ridge regression, decoded by the prior and corrected by a network.
White-box: gradient descent on the latents, until the decoded image has the encoding that was observed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_ppae.leakage.image_prior import ImagePrior
from fl_ppae.leakage.image_quality import image_quality
from fl_ppae.leakage.inversion import Encode, Inverter, Pairs, own_pairs, split_own, spread_of, tuned_search
from fl_ppae.leakage.inversion_network import fit_network
from fl_ppae.leakage.linear_inversion import LinearInverter, fit_linear

_STEP = 0.05  # of Adam, latents about standard normal
_WEIGHTS = (1e-3, 3e-2)  # of the prior
_BATCH = 256


@dataclass(frozen=True)
class LatentMap:
    """Reconstructions through a prior: the encoding's latents by `ridge`, decoded."""

    prior: ImagePrior
    ridge: LinearInverter

    @property
    def out_of_fold(self) -> Tensor:
        """As `LinearInverter.out_of_fold`."""
        return self._images(self.ridge.out_of_fold)

    def raw(self, encodings: Tensor) -> Tensor:
        """Images (N, C, H, W) of encodings (N, *encoding), not clipped."""
        return self._images(self.ridge.raw(encodings))

    def decode(self, encodings: Tensor) -> Tensor:
        """The same, clipped to [0, 1]."""
        return self.raw(encodings).clamp(0, 1)

    @torch.no_grad()
    def _images(self, latents: Tensor) -> Tensor:
        return torch.cat([self.prior.images(part) for part in latents.split(_BATCH)])


def fit_latent_map(known: Pairs, prior: ImagePrior, seed: int = 0) -> LatentMap:
    """Fitted to the attacker's pairs but the held-out ones.

    Raises:
        Unmeasurable: fewer than 5 pairs to fit to.
    """
    fit, _ = split_own(known, seed)
    return LatentMap(prior, fit_linear(fit.encodings, prior.latents(fit.images)))


def direct_inverter(known: Pairs, latent_map: LatentMap, steps: int, seed: int = 0) -> Inverter:
    """The network that corrects the prior's reconstructions, fitted in `steps` of 64 pairs."""
    fit, _ = split_own(known, seed)
    decode = fit_network(fit.encodings, fit.images, latent_map, steps, seed)
    own = own_pairs(known, seed)
    return Inverter("prior, corrected", decode, image_quality(own.images, decode(own.encodings)))


def latent_inverter(
    known: Pairs, encode: Encode, latent_map: LatentMap, steps: int, seed: int = 0
) -> Inverter:
    """The attacker who knows the encoder and searches the prior's latents w, from those of `latent_map`.

    Minimises ||encode(image of w) - z||^2 / ||spread of z||^2 plus a multiple of the mean of w^2 by Adam, as
    Bora et al. 2017 (arXiv:1703.03208). The multiple and the number of steps (0 to `steps`) did best on its
    held-out pairs.
    """
    own, spread, prior = own_pairs(known, seed), spread_of(known), latent_map.prior

    @torch.no_grad()
    def shown(latents: Tensor) -> Tensor:
        return prior.images(latents).clamp(0, 1)

    def descend(latents: Tensor, weight: float, more: int) -> Tensor:
        return _descend(encode, prior, own.encodings, latents, spread, weight, more)

    begin = latent_map.ridge.raw(own.encodings)
    quality, weight, stop = tuned_search(own, begin, shown, descend, _WEIGHTS, steps)

    def decode(encodings: Tensor) -> Tensor:
        latents = latent_map.ridge.raw(encodings)
        return shown(_descend(encode, prior, encodings, latents, spread, weight, stop))

    return Inverter("prior, searched", decode, quality)


def _descend(
    encode: Encode,
    prior: ImagePrior,
    targets: Tensor,
    start: Tensor,
    spread: float,
    weight: float,
    steps: int,
) -> Tensor:
    """Latents (N, L) after `steps` of Adam from `start`, each image independently."""
    parts = []
    for target, first in zip(targets.split(_BATCH), start.split(_BATCH), strict=True):
        latents = first.clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], lr=_STEP)
        for _ in range(steps):
            optimiser.zero_grad()
            mismatch = (encode(prior.images(latents)) - target).double().pow(2).sum() / spread
            (mismatch + weight * latents.pow(2).mean(1).sum()).backward(inputs=[latents])
            optimiser.step()
        parts.append(latents.detach())
    return torch.cat(parts)
