"""Encodings averaged over the orientations of an image that has no right way up."""

from __future__ import annotations

from torch import Tensor, nn

from fl_ppae.models.augment import ORIENTATIONS, orientations


class AveragedViews(nn.Module):
    """The mean encoding of an image's eight orientations: still one encoding of one image.

    A linear classifier's scores of it are its mean scores of the eight.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Square images (N, C, H, W) to encodings (N, *encoding)."""
        # One orientation at a time and in order, so that a row's bits don't depend on how many there are.
        first, *others = orientations(images).unbind()
        total: Tensor = self.encoder(first)
        for view in others:
            total = total + self.encoder(view)
        return total / ORIENTATIONS


def viewed(encoder: nn.Module, views: int) -> nn.Module:
    """`encoder` as it encodes with this value of the key `views`."""
    return encoder if views == 1 else AveragedViews(encoder)


def single_view(encoder: nn.Module) -> nn.Module:
    """The inverse of `viewed`: the encoder that is trained."""
    return encoder.encoder if isinstance(encoder, AveragedViews) else encoder
