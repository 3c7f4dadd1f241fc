"""Physical batches in which a record's gradient has the same bits, whatever else is in the batch.

Libraries choose the order of a matrix product's additions by the number of rows. A record's float32 gradient
therefore differs in its last bits between a batch of 5 and one of 128, and a malicious server can choose
cancelling weights that amplify the difference without limit: removing one record would then change the
contributions of all others. Physical batches are therefore padded with empty rows to a size at which each
row has the same bits as in a full batch, in any position. A probe on the training machine finds these sizes
for each network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.data.pieces import images_at_once
from fl_ppae.models.objectives import LocalModel, Objective
from fl_ppae.privacy.per_sample import Dense, PerSampleGradients, half_precision

# Records whose per-sample gradients are in memory at once: as many as a processor's cache holds; on a CUDA
# device, enough to keep it busy in about a gigabyte. Of images of more than 32 x 32 pixels fewer.
FULL = {"cpu": 256, "cuda": 2048}
_PARTS = (16, 8, 4, 2)  # of a full batch
_ONE_AT_A_TIME = (1,)
_SEED = 20_230_517  # of the probe's own weights and images
_CLASS = torch.Size(())  # shape of a label that is a class
_found: dict[object, tuple[int, ...]] = {}


def full_batch(device: torch.device, image: torch.Size, copies: int = 1) -> int:
    """How many records are in a full batch on this device, each `copies` images of this shape, (C, H, W).

    The shape of a code may have other dimensions.
    """
    most = FULL[device.type]
    return max(1, (images_at_once(most, *image[1:]) if len(image) == 3 else most) // copies)


def padded_sizes(
    model: LocalModel,
    objective: Objective,
    layout: torch.memory_format,
    image: torch.Size,
    label: torch.Size = _CLASS,
    *,
    bfloat16: bool,
    copies: int = 1,
) -> tuple[int, ...]:
    """Safe sizes of physical batches for networks like `model`, in ascending order; the last is a full batch.

    The result is (1,), one record at a time, if a row's bits depend on its position even in a full batch.

    Args:
        model: a network on its training device; its weights don't matter.
        objective: the training's objective.
        layout: memory layout of the images.
        image: shape of an image, (C, H, W).
        label: shape of a record's label: (), or (K,) of a label set.
        bfloat16: whether the layers run in bfloat16.
        copies: rows of each record, see `PerSampleGradients`; a full batch has that many fewer records.

    Raises:
        TypeError: a record's gradient depends on other records.
    """
    device = next(model.parameters()).device
    threads = torch.get_num_threads()
    key = (str(model), objective.name, layout, image, label, bfloat16, copies, device, threads)
    if key not in _found:
        network = copy.deepcopy(model)
        _found[key] = _probe(network, objective, layout, image, label, bfloat16=bfloat16, copies=copies)
    return _found[key]


def physical_batches(batch: np.ndarray, sizes: Sequence[int]) -> Iterator[tuple[np.ndarray, int]]:
    """Split the positions `batch` into parts, each with the size to which it has to be padded."""
    for start in range(0, len(batch), sizes[-1]):
        part = batch[start : start + sizes[-1]]
        yield part, next(size for size in sizes if size >= len(part))


def layout_of(model: nn.Module) -> torch.memory_format:
    """Channels last if the model has convolutions."""
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return torch.channels_last if convolves else torch.contiguous_format


def padded(rows: Tensor, size: int) -> Tensor:
    """`rows` (N, ...), followed by zeros up to (size, ...)."""
    if len(rows) == size:
        return rows
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])


def _probe(
    model: LocalModel,
    objective: Objective,
    layout: torch.memory_format,
    image: torch.Size,
    label: torch.Size,
    *,
    bfloat16: bool,
    copies: int,
) -> tuple[int, ...]:
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(_SEED)
    for module in model.modules():
        module._forward_hooks.clear()  # left by the training
    model.requires_grad_(True)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 1.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    full = full_batch(device, image, copies)
    images = torch.rand((full, copies, *image), generator=generator).to(device)
    labels = torch.zeros((full * copies, *label), dtype=torch.int64, device=device)
    gradients = PerSampleGradients(model, bfloat16=bfloat16, copies=copies)

    def rows(records: Tensor, size: int) -> list[Tensor]:
        shown = records.flatten(0, 1)
        with half_precision(bfloat16, device):
            outputs = model(shown.contiguous(memory_format=layout))
        objective.loss(outputs.float(), shown, labels[: size * copies]).sum().backward()
        parts = [
            (each.values,) if isinstance(each, Dense) else (each.left, each.right)
            for each in gradients.take()
        ]
        return [part.clone() for pair in parts for part in pair]

    def same(found: list[Tensor], size: int, order: Tensor | slice) -> bool:
        return all(
            torch.equal(part, whole[:size][order]) for part, whole in zip(found, expected, strict=True)
        )

    expected = rows(images, full)
    others = images.clone()
    others[1:] = torch.rand(images[1:].shape, generator=generator).to(device)
    if not same([part[:1] for part in rows(others, full)], 1, slice(None)):
        raise TypeError("a record's gradient depends on the other records in its batch")
    elsewhere = torch.randperm(full, generator=generator).to(device)
    if not same(rows(images[elsewhere], full), full, elsewhere):
        return _ONE_AT_A_TIME
    smaller = [full // part for part in _PARTS if part <= full]
    return (*(size for size in smaller if same(rows(images[:size], size), size, slice(None))), full)
