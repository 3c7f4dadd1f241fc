"""Adversaries in a simulation: how each behaviour changes a hospital's records or its update.

Guarantee: no behaviour changes an epsilon. The honest procedure trains on altered records and releases
altered labels, so the ledger holds for the altered records. An altered update is post-processing of the
update that the ledger paid for, or is made without reading a record. The noise and clipping of the other
hospitals do not depend on it. A hospital that really cheats may also omit its noise: only its own records
then lose their guarantee.

| behaviour | what it does | source |
|---|---|---|
| label-flip | every train label y becomes (y + 1) mod K | Tolpegin et al. 2020, arXiv:2007.08432 |
| backdoor | half its train images get a trigger, and the target's label | Gu et al. 2017, arXiv:1708.06733 |
| sign-flip | sends its update reversed and `BOOST` times as long | Li et al. 2019 (RSA), arXiv:1811.03761 |
| scaled | sends its update `BOOST` times as long | Bhagoji et al. 2019, arXiv:1811.12470 |
| random | sends a random update, `BOOST` times as long as its own | Blanchard et al. 2017, arXiv:1703.02757 |
| free-rider | returns the received encoder with a little noise | Lin et al. 2019, arXiv:1911.12560 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fl_ppae.config import RunConfig
from fl_ppae.data.records import Positions, Records
from fl_ppae.data.registry import spec_of
from fl_ppae.errors import UserError
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.noise import standard_normal
from fl_ppae.privacy.randomness import Stream

HONEST = "none"
LABEL_FLIP, BACKDOOR = "label-flip", "backdoor"
FREE_RIDER = "free-rider"

TARGET_CLASS = 0
TRIGGER_SIZE = 4  # pixels
TRIGGERED_SHARE = 0.5  # of a hospital's train records; drawn independently for each
BOOST = 10.0  # one reversed update of this length outweighs the other four of five hospitals
FREE_RIDER_NOISE = 1e-3  # of each array's root mean square


def behaviour_of(config: RunConfig, index: int) -> str:
    """The behaviour of hospital number `index`; "none" is honest."""
    return config.adversary if index in config.adversary_numbers() else HONEST


def check_adversaries(config: RunConfig, hospitals: int) -> None:
    """Refuse adversaries that a federation of `hospitals` doesn't have, or whose labels nothing learns from.

    Raises:
        UserError: names the first mistake.
    """
    uses_labels = OBJECTIVES[config.objective].learns_labels or config.shares_encodings
    if config.adversary in (LABEL_FLIP, BACKDOOR) and not uses_labels:
        learning = " or ".join(f'"{other.name}"' for other in OBJECTIVES.values() if other.learns_labels)
        raise UserError(
            f'adversary = "{config.adversary}" changes labels, which are not used with objective = '
            f'"{config.objective}" and share = "updates"; use objective = {learning}, or share encodings'
        )
    for number in config.adversary_numbers():
        if number >= hospitals:
            raise UserError(
                f"adversary-hospitals = {config.adversary_hospitals!r}: there is no hospital {number} "
                f"among {hospitals}; they are numbered 0 to {hospitals - 1}"
            )


@dataclass(frozen=True, eq=False)
class PoisonedRecords:
    """`honest` with other labels (N,) int64, and a trigger on the images where `triggered` (N,) is true."""

    honest: Records
    new_labels: np.ndarray
    triggered: np.ndarray

    def __len__(self) -> int:
        return len(self.honest)

    def images(self, positions: Positions) -> Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        images = self.honest.images(positions)
        triggered = torch.from_numpy(self.triggered[positions])[:, None, None, None]
        return torch.where(triggered, stamp(images), images)

    def labels(self, positions: Positions) -> Tensor:
        """(N,) int64."""
        return torch.from_numpy(np.array(self.new_labels[positions]))


def stamp(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1] with the trigger: a checkerboard in the lower right corner."""
    row, column = np.mgrid[:TRIGGER_SIZE, :TRIGGER_SIZE]
    stamped = images.clone()
    stamped[:, :, -TRIGGER_SIZE:, -TRIGGER_SIZE:] = torch.from_numpy((row + column) % 2).to(images)
    return stamped


def used_records(honest: Records, config: RunConfig, index: int) -> Records:
    """The train records that hospital number `index` uses: `honest`, unless it poisons data."""
    behaviour = behaviour_of(config, index)
    if behaviour not in (LABEL_FLIP, BACKDOOR):
        return honest
    labels = honest.labels(slice(None)).numpy()
    if behaviour == LABEL_FLIP:
        nothing = np.zeros(len(labels), bool)
        return PoisonedRecords(honest, (labels + 1) % spec_of(config).num_classes, nothing)
    triggered = np.random.default_rng([max(config.seed, 0), index]).random(len(labels)) < TRIGGERED_SHARE
    return PoisonedRecords(honest, np.where(triggered, TARGET_CLASS, labels), triggered)


def update_to_send(
    behaviour: str, received: Mapping[str, Tensor], trained: Mapping[str, Tensor], stream: Stream
) -> dict[str, Tensor]:
    """The encoder that a hospital sends after a round: `trained`, unless it tampers with updates.

    `received` and `trained` are state dicts of float arrays, before and after training.
    """
    if behaviour in ("sign-flip", "scaled"):
        factor = -BOOST if behaviour == "sign-flip" else BOOST
        return {name: old + factor * (trained[name] - old) for name, old in received.items()}
    if behaviour == "random":
        drawn = {name: _normal(old, stream) for name, old in received.items()}
        moved = _norm({name: trained[name] - old for name, old in received.items()})
        factor = BOOST * moved / _norm(drawn)
        return {name: old + factor * drawn[name] for name, old in received.items()}
    if behaviour == FREE_RIDER:
        return {
            name: old + FREE_RIDER_NOISE * float(old.square().mean().sqrt()) * _normal(old, stream)
            for name, old in received.items()
        }
    return dict(trained)


def _normal(like: Tensor, stream: Stream) -> Tensor:
    return torch.from_numpy(standard_normal(like.numel(), stream)).view(like.shape).to(like.dtype)


def _norm(arrays: Mapping[str, Tensor]) -> float:
    return float(sum(array.double().square().sum() for array in arrays.values())) ** 0.5


def success_rate(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The share of images (N,) of other classes that are given the target class; NaN if there are none."""
    others = labels != TARGET_CLASS
    return float(np.mean(predicted[others] == TARGET_CLASS)) if others.any() else float("nan")
