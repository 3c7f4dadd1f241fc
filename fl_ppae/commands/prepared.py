"""What `run` and `plan` check first: the configuration, then the data and its partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl_ppae.catalogue import Simulation, find, parse_overrides
from fl_ppae.config import RunConfig, Scalar
from fl_ppae.declared import OWN_DATA, names_text, shape_text
from fl_ppae.errors import UserError
from fl_ppae.paths import path_text
from fl_ppae.protection import check_quorum

if TYPE_CHECKING:
    from fl_ppae.data.cache import DataSource
    from fl_ppae.data.deal import Deal
    from fl_ppae.runs.stored import StoredRun


@dataclass(frozen=True)
class Chosen:
    """A simulation, the overrides from the command line, and the resulting configuration."""

    simulation: Simulation
    overrides: Mapping[str, Scalar]
    config: RunConfig


@dataclass(frozen=True)
class Prepared:
    """A choice with its data, dealt to the hospitals."""

    chosen: Chosen
    deal: Deal

    @property
    def source(self) -> DataSource:
        """Where the images come from."""
        return self.deal.dataset.source

    @property
    def records(self) -> dict[str, int]:
        """The number of train records, by hospital."""
        return {name: len(records) for name, records in self.deal.train.items()}


def choose(name: str, pairs: Sequence[str]) -> Chosen:
    """Find a simulation and apply `-c` pairs to it; fill in what a user's own images decide.

    Raises:
        UserError: the first mistake found.
    """
    simulation = find(name)
    overrides = parse_overrides(pairs)
    config = simulation.config(overrides)
    if config.dataset == OWN_DATA and not (config.image_shape and config.class_names):
        from fl_ppae.data.sources import resolve  # as below

        spec = resolve(config).spec
        overrides |= {
            "image-shape": shape_text(spec.image_shape),
            "class-names": names_text(spec.class_names),
        }
        config = simulation.config(overrides)
    return Chosen(simulation, overrides, config)


def choose_again(run: StoredRun, name: str) -> Chosen:
    """The simulation and the keys of an interrupted run, to go on with it.

    `name`: of the simulation, or its folder; empty: as the run calls it.

    Raises:
        UserError: the run does not say, its simulation is not found, or the run is a deployment's.
    """
    if run.config.get("deployed"):
        raise UserError(
            f"{run.name} is a deployment's run; go on with it by flwr run and -c resume={run.path}, with the "
            "same keys"
        )
    simulation = find(name or str(run.config.get("simulation")))
    overrides = {key: value for key, value in run.values.items() if simulation.values.get(key) != value}
    overrides |= {"output-dir": "", "resume": path_text(run.path)}
    return Chosen(simulation, overrides, simulation.config(overrides))


def prepare(chosen: Chosen, hospitals: int) -> Prepared:
    """Find the data and deal it to the hospitals; may download it.

    Raises:
        UserError: the first mistake found.
    """
    if hospitals < 1:
        raise UserError(f"--hospitals {hospitals}: must be at least 1")
    # Imported here: these take seconds, and a wrong key should be reported at once.
    from fl_ppae.adversary import check_adversaries
    from fl_ppae.data.deal import hospital_names, make_deal
    from fl_ppae.data.sources import resolve
    from fl_ppae.hardware import device_of
    from fl_ppae.models.build import check_released, encoding_shape_of
    from fl_ppae.runs.tracking import check_trackers
    from fl_ppae.server.start import check_start
    from strategies.robust import check_enough

    check_trackers(chosen.config)
    device_of(chosen.config.device)
    check_adversaries(chosen.config, hospitals)
    check_enough(chosen.config.aggregation, hospitals)
    check_quorum(chosen.config, hospitals)
    encoding_shape_of(chosen.config)
    dataset = resolve(chosen.config)
    check_released(chosen.config, len(dataset.val))
    check_start(chosen.config)
    return Prepared(chosen, make_deal(dataset, chosen.config, hospital_names(hospitals)))
