"""What `run` and `plan` check first: the configuration, then the data and how it is dealt out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl_ppae.catalogue import Simulation, find, parse_overrides
from fl_ppae.config import RunConfig, Scalar
from fl_ppae.errors import UserError

if TYPE_CHECKING:
    from fl_ppae.data.cache import DataSource


@dataclass(frozen=True)
class Chosen:
    """A simulation, what the command line changes of it, and the configuration that this makes."""

    simulation: Simulation
    overrides: Mapping[str, Scalar]
    config: RunConfig


@dataclass(frozen=True)
class Prepared:
    """A choice whose data is there and can be dealt out: its source, and train records by hospital."""

    chosen: Chosen
    source: DataSource
    records: Mapping[str, int]


def choose(name: str, pairs: Sequence[str]) -> Chosen:
    """Find a simulation and apply `-c` pairs to it.

    Raises:
        UserError: the first thing found wrong.
    """
    simulation = find(name)
    overrides = parse_overrides(pairs)
    return Chosen(simulation, overrides, simulation.config(overrides))


def prepare(chosen: Chosen, hospitals: int) -> Prepared:
    """Resolve and deal out the data as the run itself will; may download it.

    Raises:
        UserError: the first thing found wrong.
    """
    if hospitals < 1:
        raise UserError(f"--hospitals {hospitals}: must be at least 1")
    # Imported here: these take seconds, and a wrong key should be told at once.
    from fl_ppae.adversary import check_adversaries
    from fl_ppae.data.partition import partition
    from fl_ppae.data.sources import resolve
    from fl_ppae.hardware import device_of
    from fl_ppae.models.build import check_released, encoding_shape_of
    from fl_ppae.runs.tracking import check_trackers
    from strategies.robust import check_enough

    check_trackers(chosen.config)
    device_of(chosen.config.device)
    check_adversaries(chosen.config, hospitals)
    check_enough(chosen.config.aggregation, hospitals)
    encoding_shape_of(chosen.config)
    dataset = resolve(chosen.config)
    check_released(chosen.config, len(dataset.val))
    shares = partition(dataset.train.labels, chosen.config, hospitals)
    records = {f"hospital-{number}": len(share) for number, share in enumerate(shares)}
    return Prepared(chosen, dataset.source, records)
