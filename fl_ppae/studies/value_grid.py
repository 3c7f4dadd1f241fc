"""The cells of `study value`: one factor at a time around a centre, and the settings of the aims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

DATASET = "bloodmnist"
JOINT, OWN = "joint", "own"
ALL_PUBLIC = -1
NO_EPSILON = "none"
HONEST = {5: 3, 20: 16, 100: 80}
"""How many hospitals joint noise assumes to be honest, by how many there are."""


@dataclass(frozen=True)
class ValueCell:
    """One federation.

    Attributes:
        public: labelled images that the server has; `ALL_PUBLIC`: the whole validation split.
        epsilon: of all that leaves a hospital, `none` without noise.
        noise: `joint`, or each hospital's `own`.
        partition: `iid` or `dirichlet-0.5`.
    """

    hospitals: int
    public: int
    epsilon: str
    noise: str
    partition: str
    seed: int

    @property
    def dataset(self) -> str:
        """The same for all cells."""
        return DATASET

    @property
    def setting(self) -> str:
        """Everything but the seed, such as `h20/public100/eps8/joint/iid`."""
        public = "all" if self.public == ALL_PUBLIC else self.public
        return f"h{self.hospitals}/public{public}/eps{self.epsilon}/{self.noise}/{self.partition}"

    @property
    def name(self) -> str:
        """Unique in the study."""
        return f"{DATASET}/{self.setting}/s{self.seed}"

    def columns(self) -> dict[str, object]:
        """The columns that identify it."""
        return {
            "cell": self.name,
            "dataset": DATASET,
            "hospitals": self.hospitals,
            "public_records": self.public,
            "privacy": self.epsilon,
            "noise": self.noise,
            "partition": self.partition,
            "seed": self.seed,
        }


Settings = Mapping[str, str | int | float]

DELTA = 1e-5
ROUNDS = 100
# Chosen by accuracy on the validation split, which no hospital has, in some 60 trainings of seconds each: for
# epsilon 8 with joint noise and without noise, and for everything noisier.
_LITTLE_NOISE: Settings = {"learning-rate": 0.3, "max-grad-norm": 2.0}
_MUCH_NOISE: Settings = {"learning-rate": 0.15, "max-grad-norm": 1.0}


def settings(cell: ValueCell) -> Settings:
    """The keys of the run that the cell stands for, but for its data and seed."""
    little = cell.epsilon == NO_EPSILON or (cell.epsilon == "8" and cell.noise == JOINT)
    honest = HONEST[cell.hospitals]
    joint: Settings = {"noise": JOINT, "honest-hospitals": honest, "min-hospitals": honest + 1}
    own: Settings = {"noise": OWN, "honest-hospitals": 0, "min-hospitals": 0}
    even: Settings = {"partition": "iid"}
    uneven: Settings = {"partition": "dirichlet", "dirichlet-alpha": 0.5, "min-records": 8}
    return {
        "dataset": DATASET,
        **(even if cell.partition == "iid" else uneven),
        "public-records": cell.public,
        "num-server-rounds": ROUNDS,
        "local-steps": 1,
        "sample-rate": 1.0,
        **(_LITTLE_NOISE if little else _MUCH_NOISE),
        "objective": "task",
        "autoencoder": "scatter",
        "trains": "head",
        "classifier": "head",
        "dp-scope": "autoencoder",
        "target-epsilon": 8.0 if cell.epsilon == NO_EPSILON else float(cell.epsilon),
        "target-delta": DELTA,
        "protection": "secagg",
        **(own if cell.noise == OWN else joint),
        "evaluate-every": 0,
    }


def settings_of(row: Mapping[str, str]) -> Settings:
    """The same of a row of the study's table."""
    names = ("privacy", "noise", "partition")
    epsilon, noise, partition = (row[name] for name in names)
    cell = ValueCell(int(row["hospitals"]), int(row["public_records"]), epsilon, noise, partition, 0)
    return settings(cell)


_CENTRE = ValueCell(100, 100, "8", JOINT, "iid", 0)
_NO_PUBLIC = replace(_CENTRE, public=0)
# The centre and one factor at a time, then the other settings that the project measures itself by.
SETTINGS = (
    _CENTRE,
    replace(_CENTRE, noise=OWN),
    replace(_CENTRE, epsilon="1"),
    replace(_CENTRE, epsilon="3"),
    replace(_CENTRE, epsilon=NO_EPSILON),
    _NO_PUBLIC,
    replace(_CENTRE, public=300),
    replace(_CENTRE, public=ALL_PUBLIC),
    replace(_CENTRE, hospitals=20),
    replace(_CENTRE, hospitals=5),
    replace(_CENTRE, partition="dirichlet-0.5"),
    replace(_NO_PUBLIC, noise=OWN),
    replace(_NO_PUBLIC, epsilon="3"),
    replace(_NO_PUBLIC, hospitals=5),
    replace(_CENTRE, hospitals=20, public=300),
)


def value_cells(seeds: Sequence[int]) -> tuple[ValueCell, ...]:
    """All cells, seed by seed."""
    return tuple(replace(setting, seed=seed) for seed in seeds for setting in SETTINGS)
