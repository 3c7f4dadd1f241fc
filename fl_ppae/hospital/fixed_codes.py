"""A hospital's records as the codes of an encoder that doesn't learn, for training that moves the head alone.

A record's code depends on its own image and on the received encoder, and on nothing else, to the last bit:
images pass through in physical batches of safe sizes (`hospital.physical_batches`). Gradients of the head are
then those behind the encoder, and clipping bounds what a record adds, whatever weights were received.

Codes are kept in memory for as long as the same encoder comes, so that a hundred rounds encode once. Images
are read a batch at a time, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.data.checksums import md5_of
from fl_ppae.data.records import Positions, Records
from fl_ppae.hardware import CPU
from fl_ppae.hospital.physical_batches import full_batch, layout_of, padded, padded_sizes, physical_batches
from fl_ppae.models.isolation import check_isolated
from fl_ppae.models.objectives import LocalModel, Objective
from fl_ppae.models.views import viewed
from fl_ppae.runs.kept import digest

_MOST_NUMBERS = 2**26  # of all codes in memory: 256 MiB
_codes: dict[str, Tensor] = {}


@dataclass(frozen=True, eq=False)
class Codes:
    """Records whose images are codes: `every_code` (N, *encoding) float32 and `every_label` (N,) int64."""

    every_code: Tensor
    every_label: Tensor

    def __len__(self) -> int:
        return len(self.every_code)

    def images(self, positions: Positions = slice(None)) -> Tensor:
        """The codes, (n, *encoding)."""
        return self.every_code[positions]

    def labels(self, positions: Positions = slice(None)) -> Tensor:
        """(n,) int64."""
        return self.every_label[positions]


def on_codes(
    model: LocalModel, records: Records, objective: Objective, device: torch.device = CPU, views: int = 1
) -> tuple[LocalModel, Codes]:
    """The same head on nothing but codes, and the records as codes of the model's encoder.

    Raises:
        TypeError: as `check_isolated`.
    """
    check_isolated(model)
    key = f"{_digest(model.encoder, records)} {model.encoder} {views}"
    if key not in _codes:
        found = _encoded(model, records, objective, device, views)
        if sum(codes.numel() for codes in (*_codes.values(), found)) > _MOST_NUMBERS:
            _codes.clear()
        _codes[key] = found
    return LocalModel(nn.Identity(), model.partner), Codes(_codes[key], records.labels(slice(None)))


def _digest(encoder: nn.Module, records: Records) -> str:
    """Of the weights and all images."""
    image, _ = _shapes(records)
    at_once = full_batch(CPU, image)
    parts = [slice(start, start + at_once) for start in range(0, len(records), at_once)]
    weights = [value.cpu().numpy() for value in encoder.state_dict().values()]
    return md5_of(" ".join([digest(*weights), *(digest(records.images(part).numpy()) for part in parts)]))


def _shapes(records: Records) -> tuple[torch.Size, torch.Size]:
    """Of an image and of a label."""
    first = np.arange(1)
    return records.images(first).shape[1:], records.labels(first).shape[1:]


def _encoded(
    model: LocalModel, records: Records, objective: Objective, device: torch.device, views: int
) -> Tensor:
    model = model.to(device)
    encodes = viewed(model.encoder, views)
    layout = layout_of(model)
    sizes = padded_sizes(model, objective, layout, *_shapes(records), bfloat16=False)
    codes = []
    for positions, size in physical_batches(np.arange(len(records)), sizes):
        batch = padded(records.images(positions).to(device), size).contiguous(memory_format=layout)
        with torch.no_grad():
            codes.append(encodes(batch)[: len(positions)].to(CPU))
    model.to(CPU)
    return torch.cat(codes)
