"""Images once more, as another capture might show them: moved, brightened, turned."""

from __future__ import annotations

import torch
from torch import Tensor

from fl_ppae.models.augment import DRAWS, augmented


def recaptured(images: Tensor, *, any_way_up: bool, seed: int = 0) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each augmented once; the same for the same seed.

    Those that are not square are not turned, though they may be `any_way_up`.
    """
    draws = torch.rand(len(images), DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return augmented(images, draws, any_way_up=any_way_up and images.shape[2] == images.shape[3])
