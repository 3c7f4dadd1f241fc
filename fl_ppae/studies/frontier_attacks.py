"""What attackers make of an encoder's codes: inversion, retrieval and linkage.

The attacker holds the server's split and the first hospital's records, which collude.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.data.deal import Deal
from fl_ppae.leakage.generative_inversion import direct_inverter, fit_latent_map, latent_inverter
from fl_ppae.leakage.image_prior import fit_prior
from fl_ppae.leakage.image_quality import class_mean_images, image_quality, mean_images
from fl_ppae.leakage.inversion import (
    MEAN_IMAGE,
    Inverter,
    Pairs,
    best_inverter,
    fit_inverters,
    measured_on,
    own_pairs,
    white_box_inverter,
)
from fl_ppae.leakage.matching import fit_matcher, linkage_scores, top1
from fl_ppae.leakage.membership import membership_auc
from fl_ppae.leakage.recapture import recaptured
from fl_ppae.models.codes import quantised, straight_through
from fl_ppae.models.encoding import encode, images_to_tensor
from fl_ppae.studies.frontier_grid import FrontierScale

METRICS = ("ssim", "psnr")


@dataclass(frozen=True)
class Attackers:
    """Attackers of one encoder: what they hold, and the test images that they attack."""

    encoder: nn.Module
    known: Pairs
    victims: Pairs
    any_way_up: bool
    scale: FrontierScale
    seed: int

    def leakage(self, bits: int) -> dict[str, Any]:
        """The columns of a code of `bits` bits a number; 0: floats."""
        known, victims = (self._coded(pairs, bits) for pairs in (self.known, self.victims))
        found: dict[str, Any] = {}
        inverters = self._inverters(known, bits)
        reached = {
            each.name: image_quality(victims.images, each.decode(victims.encodings)) for each in inverters
        }
        for metric in METRICS:
            means = {name: float(quality.of(metric).mean()) for name, quality in reached.items()}
            best = best_inverter(inverters, metric).name
            found |= {f"inversion_{metric}": means[best], f"{metric}_attacker": best}
            found |= {column_of(metric, name): mean for name, mean in means.items() if name != MEAN_IMAGE}
        looks = [self._coded(self._again(pairs), bits).encodings for pairs in (known, victims)]
        matcher = fit_matcher(known.encodings, looks[0])
        same, different, _ = linkage_scores(matcher, victims.encodings, looks[1])
        exact = fit_matcher(known.encodings, known.encodings)
        return {
            **found,
            **self._floors(),
            "retrieval_known_top1": top1(exact, victims.encodings, victims.encodings).mean().item(),
            "retrieval_augmented_top1": top1(matcher, victims.encodings, looks[1]).mean().item(),
            "linkage_auc": membership_auc(same.numpy(), different.numpy()).value,
        }

    def _inverters(self, known: Pairs, bits: int) -> tuple[Inverter, ...]:
        scale = self.scale
        direct = fit_inverters(known, scale.attacker_steps, self.seed, scale.losses)
        if not scale.gradient_steps:
            return direct

        def coded(images: Tensor) -> Tensor:
            encodings: Tensor = self.encoder(images)
            return straight_through(encodings, bits) if bits else encodings

        latent_map = fit_latent_map(known, fit_prior(known.images, scale.attacker_steps), self.seed)
        searched = latent_inverter(known, coded, latent_map, scale.gradient_steps, self.seed)
        return (
            *measured_on(direct, own_pairs(known, self.seed)),
            direct_inverter(known, latent_map, scale.attacker_steps, self.seed),
            searched,
            white_box_inverter(known, coded, searched, scale.gradient_steps, self.seed),
        )

    def _floors(self) -> dict[str, float]:
        known, victims = self.known, self.victims
        guesses = {
            "mean_image": mean_images(known.images, len(victims)),
            "class_mean": class_mean_images(known.images, known.labels, victims.labels),
        }
        qualities = {name: image_quality(victims.images, images) for name, images in guesses.items()}
        return {
            f"{metric}_{name}": float(quality.of(metric).mean())
            for name, quality in qualities.items()
            for metric in METRICS
        }

    def _again(self, pairs: Pairs) -> Pairs:
        """Another capture of the same images."""
        images = recaptured(pairs.images, any_way_up=self.any_way_up, seed=self.seed)
        return _pairs(images, pairs.labels, self.encoder)

    @staticmethod
    def _coded(pairs: Pairs, bits: int) -> Pairs:
        encodings = torch.from_numpy(quantised(pairs.encodings.numpy(), bits))
        return Pairs(pairs.images, encodings, pairs.labels)


def column_of(metric: str, attacker: str) -> str:
    """The column of an attacker's result, such as `ssim_prior_searched`, without where a descent began."""
    return f"{metric}_{attacker.partition(', from ')[0].lower().replace(', ', '_')}"


def attackers_of(encoder: nn.Module, deal: Deal, scale: FrontierScale, seed: int) -> Attackers:
    """Those of a trained encoder, and up to `scale.victims` images of the official test split."""
    dataset = deal.dataset
    colluding = next(iter(deal.train.values()))
    images = torch.cat([images_to_tensor(dataset.val.images), colluding.images()])
    labels = torch.cat([torch.from_numpy(np.array(dataset.val.labels)).flatten(), colluding.labels()])
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset.test))[: scale.victims])
    encoder = encoder.eval().requires_grad_(False)
    victims = _pairs(
        images_to_tensor(dataset.test.images[rows]),
        torch.from_numpy(np.array(dataset.test.labels[rows])).flatten(),
        encoder,
    )
    return Attackers(encoder, _pairs(images, labels, encoder), victims, dataset.spec.any_way_up, scale, seed)


def _pairs(images: Tensor, labels: Tensor, encoder: nn.Module) -> Pairs:
    return Pairs(images, torch.from_numpy(encode(encoder, images)), labels)
