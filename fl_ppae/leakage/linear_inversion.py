"""The simplest attacker: ridge regression from encodings to pixels, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.ranges import check_paired

_STRENGTHS = tuple(10.0**power for power in range(-8, 5))  # times the mean eigenvalue
_FOLDS = 5
_SEED = 0
_NEGLIGIBLE = 1e-6  # of the largest spread: a coordinate below it is constant


@dataclass(frozen=True)
class LinearInverter:
    """image = mean_image + ((encoding - mean) / scale) @ weights, clipped to [0, 1].

    Attributes:
        out_of_fold: (M, C, H, W), not clipped: each fitted pair's reconstruction by a map that was fitted to
            the other four fifths, as good as those of unseen encodings.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    mean_image: Tensor
    out_of_fold: Tensor

    def decode(self, encodings: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] of encodings (N, *encoding)."""
        return self.raw(encodings).clamp(0, 1)

    def raw(self, encodings: Tensor) -> Tensor:
        """As `decode`, before clipping.

        Raises:
            Unmeasurable: a number that is not finite.
        """
        check_finite(encodings=encodings)
        inputs = (encodings.flatten(1).double() - self.mean) / self.scale
        return (inputs @ self.weights).float().view(-1, *self.mean_image.shape) + self.mean_image


def fit_linear(encodings: Tensor, images: Tensor) -> LinearInverter:
    """Ridge regression of images (M, C, H, W) on encodings (M, *encoding); M at least 5.

    Each coordinate is standardised; the strength is the one with the least error over five held-out fifths.

    Raises:
        Unmeasurable: a number that is not finite, fewer than 5 pairs, or not as many of both.
    """
    check_finite(encodings=encodings, images=images)
    check_paired(_FOLDS, encodings=encodings, images=images)
    flat = encodings.flatten(1).double()
    mean, spread = flat.mean(0), flat.std(0)
    scale = torch.where(spread > _NEGLIGIBLE * spread.max(), spread, torch.inf)  # constant: no weight
    inputs = (flat - mean) / scale
    mean_image = images.mean(0)
    outputs = (images - mean_image).flatten(1).double()
    # Drawn: pairs may come sorted, or in a period.
    folds = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(_SEED)) % _FOLDS
    maps = [_Ridge(inputs[folds != fold], outputs[folds != fold]) for fold in range(_FOLDS)]

    def error(strength: float) -> float:
        return sum(
            ((ridge.predict(inputs[folds == fold], strength) - outputs[folds == fold]) ** 2).sum().item()
            for fold, ridge in enumerate(maps)
        )

    strength = min(_STRENGTHS, key=error)
    out_of_fold = torch.empty_like(images)
    for fold, ridge in enumerate(maps):
        guess = ridge.predict(inputs[folds == fold], strength).float()
        out_of_fold[folds == fold] = guess.view(-1, *mean_image.shape) + mean_image
    weights = _Ridge(inputs, outputs).weights(strength)
    return LinearInverter(mean, scale, weights, mean_image, out_of_fold)


class _Ridge:
    """Ridge regression at every strength from one eigendecomposition, of the smaller Gram matrix."""

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        if inputs.shape[1] <= inputs.shape[0]:
            self._values, basis = torch.linalg.eigh(inputs.T @ inputs)
            self._left, self._right = basis, basis.T @ (inputs.T @ outputs)
        else:
            self._values, basis = torch.linalg.eigh(inputs @ inputs.T)
            self._left, self._right = inputs.T @ basis, basis.T @ outputs

    def weights(self, strength: float) -> Tensor:
        return self._left @ self._damped(strength)

    def predict(self, inputs: Tensor, strength: float) -> Tensor:
        return (inputs @ self._left) @ self._damped(strength)

    def _damped(self, strength: float) -> Tensor:
        level = self._values.clamp(min=0).mean() or 1.0  # of inputs that are all the same
        return self._right / (self._values.clamp(min=0) + strength * level)[:, None]
