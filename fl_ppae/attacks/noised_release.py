"""How a run noised an encoding before it left a hospital: public projection, clipping, noise.

All of it but the noise itself is public, so an attacker can do the same to encodings of its own images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppae.config import RunConfig
from fl_ppae.privacy.encodings import Projection, noised, project_and_clip
from fl_ppae.privacy.plan import upload_terms
from fl_ppae.privacy.randomness import seeded_stream
from fl_ppae.runs.arrays import read_tensors


@dataclass(frozen=True, eq=False)
class NoisedRelease:
    """The Gaussian mechanism of a run that noised its encodings; noise in clipping norms."""

    projection: Projection
    noise_multiplier: float

    def draw(self, encodings: np.ndarray, seed: int) -> np.ndarray:
        """Encodings (N, *encoding) as an attacker with images of its own would release them, (N, k)."""
        rows = project_and_clip(encodings, self.projection)
        return noised(rows, self.noise_multiplier, seeded_stream("attack", seed))

    def without_noise(self, encodings: Tensor) -> Tensor:
        """The same (N, k) without noise, and differentiable."""
        centre, components = map(torch.from_numpy, (self.projection.centre, self.projection.components))
        rows = (encodings.flatten(1) - centre) @ components.T
        return rows / rows.norm(dim=1, keepdim=True).clamp(min=self.projection.clip_norm)


def noised_release(config: RunConfig, run: Path) -> NoisedRelease | None:
    """How the run in this directory noised its encodings; None if they left plain, or not at all."""
    path, terms = run / "projection.safetensors", upload_terms(config)
    if terms is None or terms.encoding_noise_multiplier is None or not path.exists():
        return None
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    projection = Projection(arrays["centre"], arrays["components"], float(arrays["clip_norm"][0]))
    return NoisedRelease(projection, terms.encoding_noise_multiplier)
