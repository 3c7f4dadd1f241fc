"""The cells of `study frontier`: the paper's encoding, codes of few numbers and bits, and their attackers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

HOSPITALS = 5
CODES = (16, 64, 8, 32)  # numbers
BITS = (0, 1, 2, 4)  # for each number; 0: floats
PAPER = "conv"


@dataclass(frozen=True)
class FrontierCell:
    """One code; its table has a row for each classifier.

    Attributes:
        autoencoder: `conv`, the paper's, or `residual`, whose codes are small.
        numbers: in an encoding; 0: the architecture's default.
        bits: for each number; 0: floats.
    """

    dataset: str
    autoencoder: str
    numbers: int
    bits: int
    seed: int

    @property
    def name(self) -> str:
        """Unique in the study and stable between its runs."""
        code = f"{self.numbers}x{self.bits}" if self.bits else f"{self.numbers or ''}floats"
        return f"{self.dataset}/{self.autoencoder}/{code}/s{self.seed}"

    def columns(self) -> dict[str, object]:
        """The columns that identify it."""
        return {
            "cell": self.name,
            "dataset": self.dataset,
            "autoencoder": self.autoencoder,
            "hospitals": HOSPITALS,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class FrontierScale:
    """The size of a study.

    Attributes:
        rounds: of the head's training; `paper_rounds`: of the paper's encoder's.
        attacker_steps: of each network that inverts.
        losses: of those networks.
        gradient_steps: of gradient descent through the encoder; 0: no attacker with a prior.
        victims: test images that are attacked.
        alone: True if what hospitals reach alone is measured, too.
    """

    name: str
    rounds: int
    paper_rounds: int
    attacker_steps: int
    losses: tuple[str, ...]
    gradient_steps: int
    victims: int
    alone: bool


SMALL = FrontierScale("small", 30, 3, 200, ("MSE", "SSIM"), 0, 1000, alone=False)
MEDIUM = FrontierScale("medium", 60, 20, 750, ("L1", "MSE", "SSIM"), 100, 500, alone=False)
FULL = FrontierScale("full", 60, 20, 1500, ("L1", "MSE", "SSIM"), 200, 1000, alone=True)
SCALES = {scale.name: scale for scale in (SMALL, MEDIUM, FULL)}


def frontier_cells(dataset: str, seeds: Sequence[int]) -> tuple[FrontierCell, ...]:
    """All cells, seed by seed, so that an interrupted study is a complete one with fewer seeds.

    The paper's encoder comes first: an attacker that doesn't invert it says nothing about the codes.
    """
    cells = []
    for seed in seeds:
        cells.append(FrontierCell(dataset, PAPER, 0, 0, seed))
        cells += [FrontierCell(dataset, "residual", *code, seed) for code in itertools.product(CODES, BITS)]
    return tuple(cells)
