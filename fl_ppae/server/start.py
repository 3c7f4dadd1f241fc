"""The weights that all hospitals start from, by the key `start`.

They are public, or a hospital may not rely on it: it takes any weights from a server, so no guarantee
depends on how they were found.
"""

from __future__ import annotations

import torch

from fl_ppae.config import PUBLIC, RANDOM, RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import LocalModel
from fl_ppae.paths import path_of
from fl_ppae.server.plain_networks import public_network
from fl_ppae.server.start_file import load_start


def common_start(config: RunConfig, dataset: Dataset) -> LocalModel:
    """The encoder and partner before round 1.

    With `start = "public"`, the server trains them on its public records. A head that learns behind a fixed
    encoder starts at 0, unless it has been trained.

    Raises:
        UserError: as `load_start`.
    """
    model = local_model_of(config)
    if config.start == PUBLIC:
        found = public_network(config, dataset).state
        model.load_state_dict({name: found[name] for name in model.state_dict()})
        return model
    knows_head = config.start != RANDOM and load_start(path_of(config.start, "start"), model)
    if config.trains == "head" and not knows_head:
        with torch.no_grad():
            for parameter in model.partner.parameters():
                parameter.zero_()
    return model


def check_start(config: RunConfig) -> None:
    """Check a file to start from before work begins.

    Raises:
        UserError: as `load_start`.
    """
    if config.start not in (PUBLIC, RANDOM):
        load_start(path_of(config.start, "start"), local_model_of(config))
