"""Trains a network without any privacy, as strongly as a number of steps allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_ppae.data.pieces import images_at_once
from fl_ppae.data.records import Records
from fl_ppae.hardware import CPU, has_bfloat16
from fl_ppae.models.augment import DRAWS, augmented, orientations
from fl_ppae.models.objectives import Loss

_WEIGHT_DECAY = 0.05
_TEST_BATCH = 512


@dataclass(frozen=True)
class PlainTraining:
    """How the network is trained: `steps` of AdamW with `batch` records each.

    Attributes:
        rate: the largest learning rate of a one-cycle schedule.
        any_way_up: an image and its mirrored and turned copies are equally likely.
        smoothing: how much of the averaged weights a step keeps, at the end.
    """

    steps: int
    any_way_up: bool
    batch: int = 128
    rate: float = 4e-3
    smoothing: float = 0.95


def train_plainly(
    network: nn.Module,
    records: Records,
    training: PlainTraining,
    seed: int,
    loss: Loss,
    device: torch.device = CPU,
    told: Callable[[int], None] = lambda done: None,
) -> nn.Module:
    """Train `network` in place on labelled images, without any privacy; returns the average of its weights.

    Batches of augmented images pass through the shuffled records again and again. The result is an
    exponential moving average of the weights, whose memory grows with the steps done. `loss`: of an
    `Objective`. `told` gets the steps done, before each.

    Raises:
        ValueError: there are no records.
    """
    if not len(records):
        raise ValueError("a network can't learn from no records")
    network = network.to(device).train()
    average = torch.optim.swa_utils.AveragedModel(network, avg_fn=_growing_average(training.smoothing))
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.rate, total_steps=training.steps, pct_start=0.25
    )
    generator = torch.Generator().manual_seed(seed)
    for done, rows in enumerate(_batches(len(records), training, seed)):
        told(done)
        draws = torch.rand(len(rows), DRAWS, generator=generator, dtype=torch.float64)
        images = augmented(records.images(rows), draws, any_way_up=training.any_way_up)
        optimiser.zero_grad()
        images, labels = images.to(device), records.labels(rows).to(device)
        with _autocast(device):
            outputs = network(images)
        loss(outputs.float(), images, labels).mean().backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
    trained: nn.Module = average.module.eval().to(CPU)
    return trained


@torch.inference_mode()
def class_probabilities(
    network: nn.Module, records: Records, *, any_way_up: bool, device: torch.device = CPU
) -> NDArray[np.float32]:
    """Class probabilities (N, K), averaged over the eight orientations of images that may be `any_way_up`."""
    network = network.to(device).eval()
    found = []
    batch = images_at_once(_TEST_BATCH, *records.images(np.arange(0)).shape[2:])
    for start in range(0, len(records), batch):
        images = records.images(slice(start, start + batch)).to(device)
        views = orientations(images) if any_way_up else images[None]
        with _autocast(device):
            scores = network(views.flatten(0, 1)).float()
        found.append(scores.softmax(1).unflatten(0, views.shape[:2]).mean(0).cpu())
    probabilities: NDArray[np.float32] = torch.cat(found).numpy()
    return probabilities


def _batches(count: int, training: PlainTraining, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    for _ in range(training.steps):
        while len(waiting) < min(training.batch, count):
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[: training.batch]
        waiting = waiting[training.batch :]


def _growing_average(smoothing: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def average(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        kept = min(smoothing, (1 + int(count)) / (10 + int(count)))
        return kept * mean + (1 - kept) * new

    return average


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
