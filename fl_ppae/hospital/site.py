"""One hospital as its node sees it: its identity, records and state directory.

In a simulation, the simulator assigns the records and keeps the state in the run's directory. In a
deployment, the node's own configuration names the data file, the directories and the ledger; no message can.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import ERROR
from pathlib import Path

import numpy as np
from flwr.common.logger import log

from fl_ppae.adversary import used_records
from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT
from fl_ppae.data.public import EVERY_RECORD
from fl_ppae.data.records import HospitalRecords, Records
from fl_ppae.data.registry import spec_of
from fl_ppae.data.sources import resolve
from fl_ppae.declared import DECLARING_KEYS, OWN_DATA, names_text, shape_text
from fl_ppae.errors import PublicMistake
from fl_ppae.hospital.ceilings import Limits, limits_of
from fl_ppae.hospital.identity import Identity
from fl_ppae.hospital.ledgers import site_of
from fl_ppae.hospital.node_keys import NodeKeys
from fl_ppae.hospital.simulated import directory_of, read_dealt
from fl_ppae.hospital.state import HospitalState
from fl_ppae.paths import path_of


@dataclass(frozen=True)
class Hospital:
    """A hospital with its records. `train` and `test` are parts of its own data.

    If it is an adversary that poisons data, `train` is the poisoned part.

    Attributes:
        keys: the directory of its signing key, and of the other hospitals' keys, whatever the ledger.
    """

    identity: Identity
    train: Records
    test: HospitalRecords
    state: HospitalState
    limits: Limits
    keys: Path


def open_hospital(identity: Identity, node: NodeKeys, config: RunConfig, run_directory: str) -> Hospital:
    """The hospital's records and state directory.

    `run_directory` comes with the message and is only used in a simulation.

    Raises:
        UserError: a deployed hospital's data file is not usable, or not with this ledger.
    """
    if identity.deployed:
        return _open_deployed(identity, node, config)
    directory = directory_of(path_of(run_directory, "run-directory"), identity.name)
    train, test = read_dealt(directory, identity)
    return Hospital(
        identity,
        used_records(train, config, identity.index),
        test,
        HospitalState(directory, durable=False),  # a simulation that loses its machine is started again
        limits_of(node, len(train)),
        directory,
    )


def _open_deployed(identity: Identity, node: NodeKeys, config: RunConfig) -> Hospital:
    _check_dataset(node, config)
    dataset = resolve(config.model_copy(update=_own_keys(node)))
    if dataset.spec != spec_of(config):
        shape, names = shape_text(dataset.spec.image_shape), names_text(dataset.spec.class_names)
        log(ERROR, '%s has image-shape = "%s" and class-names = "%s"', node.data_file, shape, names)
        raise PublicMistake(
            f"{identity.name}'s own images are not of the run's image-shape = {config.image_shape!r} and "
            f"class-names = {config.class_names!r}"
        )
    site = site_of(node.state_dir, node.site_dir)
    state = site.state_of(node.ledger, dataset)
    train, test = (
        HospitalRecords(split, np.arange(len(split.labels)), NO_SHIFT)
        for split in (dataset.train, dataset.test)
    )
    return Hospital(identity, train, test, state, limits_of(node, len(train)), site.state)


def _check_dataset(node: NodeKeys, config: RunConfig) -> None:
    """Refuse a run that would read a deployed node's files in another way than its operator says."""
    own_images = any(getattr(node, key.replace("-", "_")) for key in DECLARING_KEYS)
    if own_images and config.dataset != OWN_DATA:
        raise PublicMistake(
            f'dataset = "{config.dataset}": this node\'s config is for its own images, dataset = "{OWN_DATA}"'
        )
    if config.dataset == OWN_DATA and not node.class_names:
        # Whether a run's classes are those found in the files would tell the server which classes are there.
        raise PublicMistake(
            f'dataset = "{OWN_DATA}": this node\'s config lacks class-names, which its operator declares'
        )


def _own_keys(node: NodeKeys) -> dict[str, object]:
    """The keys of a run that a deployed node sets itself: what its records are depends on no message."""
    declaring = [key.replace("-", "_") for key in DECLARING_KEYS]
    return {
        "data_source": "file",
        "data_file": node.data_file,
        "public_records": EVERY_RECORD,  # every image counts in the ledger, however few the run's server has
        **{name: getattr(node, name) for name in declaring},
    }
