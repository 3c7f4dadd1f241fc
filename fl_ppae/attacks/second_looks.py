"""The images of an attack once more, as another capture might show them: moved, brightened, turned."""

from __future__ import annotations

import torch
from torch import Tensor

from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.models.augment import DRAWS, augmented

_SEED = 0


def second_look(audited: AuditedRun, images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each augmented once, the same each time."""
    turned = audited.dataset.spec.any_way_up and images.shape[2] == images.shape[3]
    generator = torch.Generator().manual_seed(_SEED)
    draws = torch.rand(len(images), DRAWS, generator=generator, dtype=torch.float64)
    return augmented(images, draws, any_way_up=turned)
