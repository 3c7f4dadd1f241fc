"""Trained inversion: reconstructions by an attacker who holds pairs of encodings and images.

Black-box: a linear map and a convolutional network, fitted to the pairs. White-box: gradient descent on
the image, from the black-box reconstruction, until its encoding is the one observed. An attacker tunes on
its own pairs alone and is tested on images that it never had. One of its options is to look at no encoding
and guess the mean image, so it does better than chance or as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_ppae.errors import Unmeasurable
from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.image_quality import ImageQuality, image_quality, mean_images
from fl_ppae.leakage.inversion_network import fit_network
from fl_ppae.leakage.linear_inversion import fit_linear
from fl_ppae.leakage.ranges import check_images, check_paired

Decode = Callable[[Tensor], Tensor]
Encode = Callable[[Tensor], Tensor]

MEAN_IMAGE = "mean image"
HELD_OUT = 0.2  # of the attacker's own pairs, to choose the best attacker by
TUNED_ON = 100  # of the held-out pairs, by the white-box attacker
_STEP = 5e-3  # of Adam, pixels in [0, 1]
_TV_WEIGHTS = (0.0, 3e-4, 1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Pairs:
    """Images (N, C, H, W) in [0, 1], their encodings (N, *encoding) and labels (N,).

    Raises:
        Unmeasurable: not as many of each, an image that is not in [0, 1], or a number that is not finite.
    """

    images: Tensor
    encodings: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_images(images=self.images)
        check_finite(encodings=self.encodings)
        check_paired(images=self.images, encodings=self.encodings, labels=self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, positions: Tensor | slice) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.images[positions], self.encodings[positions], self.labels[positions])


@dataclass(frozen=True)
class Inverter:
    """A fitted attacker: `decode` takes encodings (N, *encoding) to images (N, C, H, W) in [0, 1].

    `own` is its quality on its own held-out pairs, by which the best of several is chosen.
    """

    name: str
    decode: Decode
    own: ImageQuality


def best_inverter(inverters: Sequence[Inverter], metric: str) -> Inverter:
    """The one that did best by `metric` on the attacker's held-out pairs; of equals the first."""
    return max(inverters, key=lambda inverter: inverter.own.goodness(metric))


def measured_on(inverters: Sequence[Inverter], own: Pairs) -> tuple[Inverter, ...]:
    """The same attackers with their quality on other pairs that they were not fitted to."""
    return _measured({each.name: each.decode for each in inverters}, own)


def split_own(known: Pairs, seed: int = 0) -> tuple[Pairs, Pairs]:
    """The attacker's pairs: those to fit, and a fifth that is held out."""
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, int(HELD_OUT * len(known)))
    return known.rows(order[held_out:]), known.rows(order[:held_out])


def own_pairs(known: Pairs, seed: int = 0) -> Pairs:
    """Those of the held-out pairs that the white-box attacker tunes on."""
    return split_own(known, seed)[1].rows(slice(TUNED_ON))


def fit_inverters(
    known: Pairs, steps: int, seed: int = 0, losses: Sequence[str] = ("L1",)
) -> tuple[Inverter, ...]:
    """Black-box attackers fitted to `known` pairs, the one with the best SSIM on held-out pairs first.

    One linear map, and a convolutional network for each loss: the best by one metric is not so by another.

    The last of equals is the mean image, which needs no encoding.

    Args:
        known: at least 10 pairs; encodings (k,) or (c, h, w), noised or not.
        steps: of the convolutional network, 64 pairs each.
        seed: of its weights and batches.
        losses: of `inversion_network.LOSSES`.

    Raises:
        Unmeasurable: fewer than 10 pairs.
    """
    if len(known) < 10:
        raise Unmeasurable(f"an attacker needs 10 pairs or more, got {len(known)}")
    fit, own = split_own(known, seed)
    linear = fit_linear(fit.encodings, fit.images)
    networks = {
        f"convolutional, {loss}": fit_network(fit.encodings, fit.images, linear, steps, seed, loss)
        for loss in losses
    }
    decoders: dict[str, Decode] = {
        "linear": linear.decode,
        **networks,
        MEAN_IMAGE: lambda encodings: mean_images(fit.images, len(encodings)),
    }
    return tuple(sorted(_measured(decoders, own), key=lambda inverter: -inverter.own.goodness("ssim")))


def mean_guess(known: Pairs, own: Pairs) -> Inverter:
    """The attacker who looks at no encoding, with its quality on `own` pairs."""
    return _measured({MEAN_IMAGE: lambda encodings: mean_images(known.images, len(encodings))}, own)[0]


def spread_of(known: Pairs) -> float:
    """The summed variance of the known encodings' numbers; 1 if they are all the same."""
    return known.encodings.double().var(0).sum().item() or 1.0


def white_box_inverter(known: Pairs, encode: Encode, start: Inverter, steps: int, seed: int = 0) -> Inverter:
    """The attacker who also knows the encoder: it improves `start`'s reconstructions by gradient descent.

    Minimises over the image x, per image, ||encode(x) - z||^2 / ||spread of z||^2 plus a total-variation
    prior (Mahendran & Vedaldi 2015, arXiv:1412.0035), by Adam. The prior's weight and the number of steps
    (0, `steps` / 4, `steps` / 2, `steps`) are those that did best on up to 100 of its held-out pairs; so it
    is `start` itself if the gradient does not help, as with heavy noise.

    Args:
        known: the pairs `start` was fitted to.
        encode: (N, C, H, W) to (N, *encoding), differentiable, without the noise.
        start: a black-box attacker.
        steps: at most.
        seed: the one `start` was fitted with.
    """
    own = own_pairs(known, seed)
    spread = spread_of(known)

    def descend(images: Tensor, weight: float, more: int) -> Tensor:
        return _descend(encode, own.encodings, images, spread, weight, more)

    begin = start.decode(own.encodings)
    quality, weight, stop = tuned_search(own, begin, lambda images: images, descend, _TV_WEIGHTS, steps)

    def decode(encodings: Tensor) -> Tensor:
        return _descend(encode, encodings, start.decode(encodings), spread, weight, stop)

    return Inverter(f"gradient, from {start.name}", decode, quality)


def tuned_search(
    own: Pairs,
    start: Tensor,
    shown: Callable[[Tensor], Tensor],
    descend: Callable[[Tensor, float, int], Tensor],
    weights: Sequence[float],
    steps: int,
) -> tuple[ImageQuality, float, int]:
    """The best quality by SSIM that a search reaches on `own` pairs, and its weight and number of steps.

    Args:
        own: pairs that it tunes on.
        start: where it begins, (N, *any).
        shown: from where it stands to images (N, C, H, W) in [0, 1].
        descend: from where it stands, a weight and a number of steps, to where it stands after these.
        weights: of the prior, to choose from.
        steps: at most; it may also stop at a half or a quarter of them, or never begin.
    """
    options = [(image_quality(own.images, shown(start)), 0.0, 0)]
    for weight in weights:
        reached, place = 0, start
        for stop in (steps // 4, steps // 2, steps):
            place = descend(place, weight, stop - reached)
            reached, images = stop, shown(place)
            if _finite(images):
                options.append((image_quality(own.images, images), weight, stop))
    return max(options, key=lambda option: option[0].goodness("ssim"))


def _measured(decoders: Mapping[str, Decode], own: Pairs) -> tuple[Inverter, ...]:
    """Attackers with their quality on these pairs; one that diverges on them is left out."""
    made = {name: decode(own.encodings) for name, decode in decoders.items()}
    return tuple(
        Inverter(name, decoders[name], image_quality(own.images, images))
        for name, images in made.items()
        if _finite(images)
    )


def _finite(images: Tensor) -> bool:
    return bool(torch.isfinite(images).all())


def _descend(
    encode: Encode, targets: Tensor, start: Tensor, spread: float, weight: float, steps: int
) -> Tensor:
    """Images (N, C, H, W) in [0, 1] after `steps` of Adam from `start`, each image independently."""
    parts = []
    for target, first in zip(targets.split(256), start.split(256), strict=True):
        images = first.clone().requires_grad_()
        optimiser = torch.optim.Adam([images], lr=_STEP)
        for _ in range(steps):
            optimiser.zero_grad()
            mismatch = (encode(images) - target).double().pow(2).sum() / spread
            (mismatch + weight * _total_variation(images)).backward(inputs=[images])
            optimiser.step()
            with torch.no_grad():
                images.clamp_(0, 1)
        parts.append(images.detach())
    return torch.cat(parts)


def _total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, summed over images."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean((1, 2, 3))
    across = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    return (down + across).sum()
