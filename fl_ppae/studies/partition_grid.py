"""The cells of `study partitions`: how records are split, and how noise is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DATASET = "bloodmnist"
TRAIN_IMAGES, SERVER_IMAGES, TEST_IMAGES = 4000, 1000, 1000
HOSPITALS = (5, 20)
FEDERATED, CENTRAL, ALONE = "federated", "central", "alone"
CALIBRATED, SHARED = "calibrated", "shared"

# The run's keys for each split.
PARTITIONS: dict[str, dict[str, str | float | int]] = {
    "iid": {"partition": "iid"},
    "dirichlet-10": {"partition": "dirichlet", "dirichlet-alpha": 10.0},
    "dirichlet-1": {"partition": "dirichlet", "dirichlet-alpha": 1.0},
    "dirichlet-0.5": {"partition": "dirichlet", "dirichlet-alpha": 0.5},
    "dirichlet-0.1": {"partition": "dirichlet", "dirichlet-alpha": 0.1},
    "pathological": {"partition": "pathological", "classes-per-hospital": 3},
    "quantity-skew": {"partition": "quantity-skew"},
    "acquisition-shift": {"partition": "acquisition-shift"},
}


@dataclass(frozen=True)
class PartitionCell:
    """One split in one setting: `federated`, each hospital `alone`, or `central` (one hospital has all).

    Attributes:
        noise: `calibrated` per hospital to the target epsilon, or one noise multiplier `shared` by all.
    """

    partition: str
    setting: str
    noise: str
    hospitals: int
    seed: int

    @property
    def dataset(self) -> str:
        """The same for all cells."""
        return DATASET

    @property
    def name(self) -> str:
        """Unique in the study."""
        return f"{DATASET}/{self.partition}/{self.setting}/{self.noise}/h{self.hospitals}/s{self.seed}"

    def columns(self) -> dict[str, object]:
        """The columns that identify it."""
        return {
            "cell": self.name,
            "dataset": DATASET,
            "partition": self.partition,
            "setting": self.setting,
            "noise": self.noise,
            "hospitals": self.hospitals,
            "seed": self.seed,
        }


def partition_cells(seeds: Sequence[int]) -> tuple[PartitionCell, ...]:
    """All cells, seed by seed."""
    cells = []
    for seed in seeds:
        cells.append(PartitionCell("iid", CENTRAL, CALIBRATED, 1, seed))
        for hospitals in HOSPITALS:
            for partition in PARTITIONS:
                cells.append(PartitionCell(partition, FEDERATED, CALIBRATED, hospitals, seed))
                cells.append(PartitionCell(partition, FEDERATED, SHARED, hospitals, seed))
                cells.append(PartitionCell(partition, ALONE, CALIBRATED, hospitals, seed))
    return tuple(cells)
