"""What a server may ask of a hospital. Every message is read here, before anything is paid for it.

Whatever fails is `Malformed`, and the hospital declines. The text depends on the message and the
configuration alone, never on a record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from fl_ppae import message_arrays
from fl_ppae.config import RunConfig
from fl_ppae.messages import ARRAYS, CHECKPOINTED, CONFIG, RESUMED, Malformed
from fl_ppae.models.build import encoding_shape_of, shared_shapes_of
from fl_ppae.privacy.encodings import Projection
from fl_ppae.privacy.events import PARTS

Weights = dict[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class TrainRequest:
    """A request for one round of training, from these encoder weights.

    Attributes:
        checkpointed: the round after which the server has its checkpoint: no earlier one is asked for again.
    """

    server_round: int
    encoder: Weights
    checkpointed: int


@dataclass(frozen=True)
class UploadRequest:
    """A request for one chunk, from 0, of the encodings of a part."""

    part: str
    chunk: int


@dataclass(frozen=True)
class ReleaseInputs:
    """What a hospital needs of the server to make a release.

    Attributes:
        encoder: the common encoder's weights; None if the hospital encodes with its own.
        projection: None if encodings are shared plain.
    """

    encoder: Weights | None
    projection: Projection | None


def asked(
    read: Callable[[RecordDict, RunConfig], T], content: RecordDict, config: RunConfig
) -> tuple[T | None, str]:
    """What `read`, one of the functions below, finds in a message, or why the hospital declines it."""
    try:
        return read(content, config), ""
    except Malformed as problem:
        return None, f"the server's request is malformed: {problem}"


def train_request(content: RecordDict, config: RunConfig) -> TrainRequest:
    """The request in a train message.

    Raises:
        Malformed: no round of this run, or no encoder that can be trained.
    """
    server_round = integer_in(content, "server-round")
    if not 1 <= server_round <= config.num_server_rounds:
        raise Malformed(f"server-round is not from 1 to num-server-rounds = {config.num_server_rounds}")
    kept = content.config_records[CONFIG].get(CHECKPOINTED, server_round - 1)
    if not isinstance(kept, int):
        raise Malformed(f"{CHECKPOINTED} is no whole number")
    return TrainRequest(server_round, encoder_in(content, config), kept)


def upload_request(content: RecordDict, config: RunConfig) -> UploadRequest:
    """The request in a message that asks for encodings.

    Raises:
        Malformed: this run shares no encodings, or the part or chunk is none.
    """
    if not config.shares_encodings:
        raise Malformed(f'no encodings are shared with share = "{config.share}"')
    part, chunk = text_in(content, "part"), integer_in(content, "chunk")
    if part not in PARTS:
        raise Malformed(f"part is none of {', '.join(PARTS)}")
    if chunk < 0:
        raise Malformed("chunk is below 0")
    return UploadRequest(part, chunk)


def release_inputs(content: RecordDict, config: RunConfig) -> ReleaseInputs:
    """The encoder and projection in a message that asks for encodings, as far as this run needs them.

    Raises:
        Malformed: one is missing or can't be used.
    """
    projection = None
    if config.encoding_noise_epsilon:
        size, encoding = config.projection_size, encoding_shape_of(config)
        projection = message_arrays.read_projection(content, size, encoding)
    return ReleaseInputs(encoder_in(content, config) if config.shares_updates else None, projection)


def run_in(content: RecordDict, own: str) -> str:
    """The run that a message belongs to: the Flower run `own`, or the interrupted one that it goes on with.

    The name makes no difference to what records may spend: budgets count all events of all runs.

    Raises:
        Malformed: it can't be the name of a run.
    """
    resumed = content.config_records.get(CONFIG, ConfigRecord()).get(RESUMED, own)
    if not isinstance(resumed, str) or not re.fullmatch("[0-9]{1,20}", resumed):  # part of files' names
        raise Malformed(f"{RESUMED} is no run's number")
    return resumed


def encoder_in(content: RecordDict, config: RunConfig) -> Weights:
    """The weights of this run's encoder (and head, see `shared_of`), also of what doesn't learn.

    Raises:
        Malformed: they are missing, or not those of this run.
    """
    arrays = content.array_records.get(ARRAYS)
    if arrays is None:
        raise Malformed("it holds no encoder")
    return message_arrays.from_arrays(arrays, shared_shapes_of(config))


def text_in(content: RecordDict, key: str) -> str:
    """The text under `key`.

    Raises:
        Malformed: there is none.
    """
    value = content.config_records.get(CONFIG, ConfigRecord()).get(key)
    if not isinstance(value, str):
        raise Malformed(f"it has no text {key}")
    return value


def integer_in(content: RecordDict, key: str) -> int:
    """The whole number under `key`.

    Raises:
        Malformed: there is none.
    """
    value = content.config_records.get(CONFIG, ConfigRecord()).get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"it has no whole number {key}")
    return value
