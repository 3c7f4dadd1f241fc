"""The final classifier if encodings are shared: collects and pools them once, trains on them and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from fl_ppae import message_arrays
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import pooled
from fl_ppae.hospital.simulated import in_dealt_order
from fl_ppae.models.build import public_seed, released_format_of
from fl_ppae.models.encoding import Images, encode
from fl_ppae.models.views import viewed
from fl_ppae.privacy.encodings import Projection, noised, project_and_clip, public_projection
from fl_ppae.privacy.events import TEST_PART, TRAIN_PART
from fl_ppae.privacy.labels import transition
from fl_ppae.privacy.plan import upload_terms
from fl_ppae.privacy.randomness import seeded_stream
from fl_ppae.server.evaluation import Measured, attack_success, fit, recognised, similarity_of
from fl_ppae.server.metrics import score
from fl_ppae.server.noised_classifier import classifier_of, moments
from fl_ppae.server.session import Session
from fl_ppae.steps import step
from strategies.encoding_upload import Refused, Request, Upload, collect
from strategies.returning import find_returned
from strategies.server_ledger import EXCLUDED


@dataclass(frozen=True)
class _Tested:
    """What the classifier is tested on.

    Attributes:
        images: the originals.
        labels: (N,).
        rows: (N,), their positions in the official test split.
        plain: un-noised encodings, projected if the run projects; None if the server has no encoder.
        released: encodings as they leave a hospital.
    """

    images: Images
    labels: np.ndarray
    rows: np.ndarray
    plain: np.ndarray | None
    released: np.ndarray


def learn_from_uploads(session: Session, encoder: nn.Module, trained: Measured | None) -> Measured:
    """Collect the hospitals' encodings, train the final classifier on them and test it.

    `encoder` is the common one or, with `share = encodings`, the public one from which each hospital
    started its own; `trained` is then None.
    """
    config = session.config
    projection = _projection(session, encoder)
    train = _ask(session, TRAIN_PART, encoder, projection)
    uploads = {
        name: {"records": 0, "refused": upload.reason}
        if isinstance(upload, Refused)
        else {"records": len(upload.encodings)}
        for name, upload in train.items()
    }
    session.run.update(uploads=uploads)
    taken = _accepted(train)
    if not taken:
        raise RuntimeError("no hospital uploaded encodings; summary.json says why, by hospital")
    known = np.concatenate([upload.encodings for upload in taken.values()])
    labels = np.concatenate([upload.labels for upload in taken.values() if upload.labels is not None])
    if trained is not None:
        tested = _server_test(session, encoder, projection)
    else:
        tested = _hospitals_test(session, encoder, projection)
    result = _learn(config, known, labels, tested)
    if trained is None:
        return result

    def encoded(images: np.ndarray | torch.Tensor) -> np.ndarray:
        return _plain(config, encoder, images, projection).astype(np.float32)

    attack = attack_success(config, result.classifier, session.dataset, encoded)
    return replace(result, reconstruction_loss=trained.reconstruction_loss, attack_success=attack)


def _learn(config: RunConfig, known: np.ndarray, labels: np.ndarray, tested: _Tested) -> Measured:
    leakage = similarity_of(tested.images, tested.released)
    terms = upload_terms(config)
    assert terms is not None  # this run shares encodings
    classes, noise = terms.classes, terms.encoding_noise_multiplier
    if noise is None:
        spread = transition(config.label_epsilon, classes) if config.label_epsilon else None
        classifier, found = fit(config, known, labels, tested.released, tested.labels, spread)
        seen = recognised(classifier, tested.released, tested.labels, tested.rows)
        return Measured(found, None, leakage, classifier, seen)
    learned = moments(known, labels, classes, noise, config.label_epsilon)
    classifier = classifier_of(learned, noised_input=True)
    noised_score = score(tested.labels, classifier.scores(tested.released))
    if tested.plain is None:
        seen = recognised(classifier, tested.released, tested.labels, tested.rows)
        return Measured(noised_score, None, leakage, classifier, seen, noised_score)
    classifier = classifier_of(learned, noised_input=False)
    plain_score = score(tested.labels, classifier.scores(tested.plain))
    seen = recognised(classifier, tested.plain, tested.labels, tested.rows)
    return Measured(plain_score, None, leakage, classifier, seen, noised_score)


def _projection(session: Session, encoder: nn.Module) -> Projection | None:
    """Fitted on the server's own split; None if encodings are not noised."""
    config = session.config
    if not config.encoding_noise_epsilon:
        return None
    found = public_projection(
        encode(viewed(encoder, config.views), session.dataset.val.images), config.projection_size
    )
    arrays = {
        "centre": found.centre,
        "components": found.components,
        "clip_norm": np.array([found.clip_norm]),
    }
    save_file(arrays, session.run.path / "projection.safetensors")
    return found


def _ask(
    session: Session, part: str, encoder: nn.Module, projection: Projection | None
) -> dict[str, Upload | Refused]:
    """The encodings of `part` from every hospital that is not excluded."""
    config = session.config
    server_ledger = session.server_ledger
    step(f"collecting the encodings of the {part} part")
    find_returned(session.grid, session.members, session.nodes, config.reply_timeout)
    nodes = {
        name: node for name, node in session.nodes.items() if server_ledger.accounts[name].status != EXCLUDED
    }
    enrolled = {name: session.enrolments[name] for name in nodes}
    train = part == TRAIN_PART
    records = {name: one.records if train else one.test_records for name, one in enrolled.items()}
    request = Request(
        part,
        config.num_server_rounds,
        released_format_of(config),
        session.dataset.spec.label,
        session.where,
        message_arrays.to_arrays(encoder.state_dict()) if config.shares_updates else None,
        message_arrays.projection_record(projection) if projection is not None else None,
        config.reply_timeout,
    )
    return collect(session.grid, server_ledger, nodes, records, request)


def _server_test(session: Session, encoder: nn.Module, projection: Projection | None) -> _Tested:
    """The official test split, encoded by the server, with the noise that a new patient's encoding gets."""
    test = session.dataset.test
    encodings = _plain(session.config, encoder, test.images, projection)
    rows = np.arange(len(test))
    if projection is None:
        return _Tested(test.images, test.labels, rows, encodings, encodings)
    terms = upload_terms(session.config)
    assert terms is not None and terms.encoding_noise_multiplier is not None  # it has a projection
    stream = seeded_stream("server", public_seed(session.config))
    released = noised(encodings, terms.encoding_noise_multiplier, stream)
    return _Tested(test.images, test.labels, rows, encodings.astype(np.float32), released)


def _plain(
    config: RunConfig,
    encoder: nn.Module,
    images: np.ndarray | torch.Tensor,
    projection: Projection | None,
) -> np.ndarray:
    """Images encoded by the common encoder, without noise; projected or rounded if the run does that."""
    encoded = encode(viewed(encoder, config.views), images, bits=config.encoding_bits)
    return encoded if projection is None else project_and_clip(encoded, projection)


def _hospitals_test(session: Session, encoder: nn.Module, projection: Projection | None) -> _Tested:
    """The hospitals' shares of the official test split, as they released them, paired with their originals.

    Only the simulator can pair them: rows leave a hospital in an order that no message tells.
    """
    assert session.deal is not None  # share = encodings is refused in a deployment
    tested = _accepted(_ask(session, TEST_PART, encoder, projection))
    if not tested:
        raise RuntimeError("no hospital uploaded encodings of its test part; the log says why, by hospital")
    held = {name: session.deal.test[name] for name in tested}
    images, labels = pooled(held)
    rows = np.concatenate([records.indices for records in held.values()])
    encodings = [
        in_dealt_order(upload.encodings, name, TEST_PART, session.run.path) for name, upload in tested.items()
    ]
    return _Tested(images, labels, rows, None, np.concatenate(encodings))


def _accepted(uploads: Mapping[str, Upload | Refused]) -> dict[str, Upload]:
    return {name: upload for name, upload in uploads.items() if isinstance(upload, Upload)}
