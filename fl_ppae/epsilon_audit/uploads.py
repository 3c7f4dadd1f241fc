"""Audits noised encodings and randomised labels: a hospital whose records are canaries makes its own upload.

Each record is one of two, by its own fair coin: a black image with label 0 or a white one with label 1. The
malicious server sends an encoder and a projection at which the two encodings are opposite vectors at the
clipping norm, as far apart as any two can be: replace-one neighbours at the full sensitivity. Training before
the upload, at a learning rate of `NO_LEARNING`, leaves the encoder as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord
from scipy.special import logit
from scipy.stats import beta
from torch import nn

from fl_ppae import message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset, DataSource, obtain
from fl_ppae.data.deal import Deal
from fl_ppae.data.npz import Arrays
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.registry import spec_of
from fl_ppae.epsilon_audit.bounds import Guessed, guess
from fl_ppae.epsilon_audit.hostile_server import hostile_server
from fl_ppae.epsilon_audit.trainings import draw_coins
from fl_ppae.epsilon_audit.verdicts import Family, Finding, find
from fl_ppae.hospital.simulated import in_dealt_order
from fl_ppae.models.build import autoencoder_of, released_format_of
from fl_ppae.privacy.accounting import losses_of_encodings, replace_one_epsilon
from fl_ppae.privacy.clipping import CLIP_MARGIN
from fl_ppae.privacy.encodings import Projection
from fl_ppae.privacy.events import TRAIN_PART, Event, Gaussian, RandomisedResponse
from fl_ppae.privacy.labels import randomised_response
from fl_ppae.privacy.noise import SAMPLER_EPSILON
from fl_ppae.privacy.randomness import Stream, seeded_stream
from fl_ppae.privacy.trade_offs import INTERVAL, Curve, curve_of

NO_NOISE, HALF = "no noise", "half the noise"
CLEAR, TWICE = "labels in the clear", "twice the epsilon"
NO_LEARNING = 1e-12
_CLIP = 1e-3  # of the distance between the two encodings: both are clipped


@dataclass(frozen=True, eq=False)
class Uploaded:
    """One upload, in the order of the records.

    Attributes:
        white: (m,) bool, the coins.
        along: (m,) float64, released encodings along the line between the two, in clipping norms.
        labels: (m,) int64, as released.
        events: the ledger's, for the upload.
    """

    white: np.ndarray
    along: np.ndarray
    labels: np.ndarray
    events: tuple[Event, ...]


def upload_canaries(config: RunConfig, index: int, hospitals: int, canaries: int, number: int) -> Uploaded:
    """The upload of a hospital with `canaries` records; `number` seeds it, with the run's seed.

    Raises:
        UserError: the hospital failed or declined.
    """
    white, own_seed = draw_coins(config, index, number, canaries)
    changes = {"seed": own_seed, "num_server_rounds": 1, "learning_rate": NO_LEARNING, "dp_scope": "none"}
    scratch = config.model_copy(update={**changes, "device": "cpu", "diagnostics": False})
    name = f"hospital-{index}"
    dataset = _black_and_white(scratch)
    deal = Deal(dataset, {name: HospitalRecords(dataset.train, white.astype(np.int64))}, 0, None)
    encoder = autoencoder_of(scratch).encoder
    projection = _apart(encoder, HospitalRecords(dataset.train, np.arange(2)), scratch.projection_size)
    encoding, label = released_format_of(scratch), dataset.spec.label
    rows, labels, chunks, chunk = [], [], 1, 0
    with hostile_server(deal, scratch, index, hospitals) as server:
        server.train(encoder.state_dict(), 1)
        while chunk < chunks:
            content = server.encodings(encoder.state_dict(), projection, chunk)
            part, their_labels, chunks = message_arrays.read_chunk(content, encoding, label)
            assert their_labels is not None  # those of the train part always come with encodings
            rows.append(part)
            labels.append(their_labels)
            chunk += 1
        events = messages.read_events(content.config_records[messages.CLAIM])
        released, answered = (
            in_dealt_order(np.concatenate(parts), name, TRAIN_PART, server.folder) for parts in (rows, labels)
        )
    return Uploaded(white, released[:, 0].astype(np.float64), answered, events)


def audit_encodings(
    uploads: Sequence[Uploaded], confidence: float, delta: float, claim: float | None = None
) -> Finding:
    """What the encodings of `uploads` show about the Gaussian mechanism's epsilon, replace one record."""
    (event,) = {event for event in uploads[0].events if isinstance(event, Gaussian)}

    def scaled(scale: float) -> Gaussian:
        return replace(event, noise_multiplier=event.noise_multiplier * scale)

    @cache
    def curve(scale: float) -> Curve:
        return curve_of(losses_of_encodings(scaled(scale), INTERVAL), SAMPLER_EPSILON)

    def epsilon(scale: float) -> float:
        return 0.0 if math.isinf(scale) else replace_one_epsilon([scaled(scale)], delta)

    def guessed(share: float) -> list[Guessed]:
        found = []
        for each in uploads:
            clean = np.where(each.white, 1.0, -1.0) / (1 + CLIP_MARGIN)
            found.append(guess(clean + share * (each.along - clean), each.white))
        return found

    return find(
        Family(curve, epsilon),
        epsilon(1.0) if claim is None else claim,
        guessed(1.0),
        {NO_NOISE: guessed(0.0), HALF: guessed(0.5)},
        (),
        confidence,
    )


def audit_labels(upload: Uploaded, confidence: float, seed: int, claim: float | None = None) -> Finding:
    """What the labels of an upload show about randomised response.

    Only labels released as one of the two are guessed about. At delta 0 each of these guesses is right with
    probability at most e^epsilon / (1 + e^epsilon), given the others and the output (arXiv:2305.08846), so
    the bound is that of Clopper and Pearson.
    """
    (event,) = {event for event in upload.events if isinstance(event, RandomisedResponse)}
    true = upload.white.astype(np.int64)

    def guessed(labels: np.ndarray) -> tuple[int, int]:
        told = labels < 2
        return int((labels == true)[told].sum()), int(told.sum())

    def bound(right: int, made: int) -> float:
        if right == 0:
            return 0.0
        return max(0.0, float(logit(beta.ppf(1 - confidence, right, made - right + 1))))

    stream: Stream = seeded_stream("audit", "labels", seed)
    looser = randomised_response(true, 2 * event.epsilon, event.classes, stream)
    right, made = guessed(upload.labels)
    return Finding(
        event.epsilon if claim is None else claim,
        bound(right, made),
        bound(len(true), len(true)),
        {CLEAR: bound(*guessed(true)), TWICE: bound(*guessed(looser))},
        (),
        (right,),
        (made,),
    )


def _black_and_white(config: RunConfig) -> Dataset:
    """A data set of two images: one black, of label 0, and one white, of label 1."""
    spec = spec_of(config)
    source = DataSource(spec.title, "file", "black and white", md5="")

    def read(_scratch: Path) -> Arrays:
        images = np.zeros((2, spec.height, spec.width, spec.channels), np.uint8)
        images[1] = 255
        labels = np.arange(2)
        return {
            f"{split}_{what}": values
            for split in ("train", "val", "test")
            for what, values in (("images", images), ("labels", labels))
        }

    return obtain(spec, source, read)


@torch.inference_mode()
def _apart(encoder: nn.Module, both: HospitalRecords, size: int) -> ArrayRecord:
    """A projection at which the encodings of the two records `both` are minus one and one clipping norm."""
    black, white = encoder(both.images()).flatten(1).double().numpy()
    distance = float(np.linalg.norm(white - black))
    components = np.zeros((size, len(white)), np.float32)
    components[0] = (white - black) / distance
    centre = ((white + black) / 2).astype(np.float32)
    return message_arrays.projection_record(Projection(centre, components, _CLIP * distance))
