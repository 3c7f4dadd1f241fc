"""A hospital's model between messages: the common encoder and the partner that it keeps."""

from __future__ import annotations

import torch

from fl_ppae.config import RunConfig
from fl_ppae.data.records import Records
from fl_ppae.hospital.release import batches
from fl_ppae.hospital.requests import Weights
from fl_ppae.hospital.state import TrainingState
from fl_ppae.hospital.training import Moments
from fl_ppae.models.build import local_model_of, shared_of
from fl_ppae.models.objectives import LocalModel, Objective


def resumed_model(
    config: RunConfig, run: str, saved: TrainingState | None, sent: Weights | None
) -> tuple[LocalModel, Moments]:
    """The model to train or encode with next, and its optimiser's moments.

    Args:
        saved: state after the last round; ignored if it belongs to another run.
        sent: the server's encoder (and head, see `shared_of`), checked; a hospital that shares no updates
            continues with its own instead.
    """
    model = local_model_of(config)
    saved = saved if saved is not None and saved.run == run else None
    if saved is not None:
        model.partner.load_state_dict(saved.partner)
    if saved is not None and not config.shares_updates:
        model.encoder.load_state_dict(saved.encoder)
    elif sent is not None:
        shared_of(config, model).load_state_dict(sent)
    return model, saved.moments if saved is not None else {}


@torch.inference_mode()
def mean_loss(model: LocalModel, records: Records, objective: Objective) -> float:
    """The mean loss over all `records`."""
    total = 0.0
    for positions in batches(records):
        images, labels = records.images(positions), records.labels(positions)
        total += float(objective.loss(model(images), images, labels).sum())
    return total / len(records)
