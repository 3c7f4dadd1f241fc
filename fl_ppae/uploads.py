"""The final classifier where encodings are shared: collected once, pooled, trained on, tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from fl_ppae import messages
from fl_ppae.evaluation import encode
from fl_ppae.models.build import encoding_shape_of
from fl_ppae.server_evaluation import Measured, fit, similarity_of
from fl_ppae.session import Session
from fl_ppae.simulator import pooled
from strategies.book import EXCLUDED
from strategies.encoding_upload import Refused, Upload, collect


def learn_from_uploads(session: Session, encoder: nn.Module, trained: Measured | None) -> Measured:
    """Collect the hospitals' encodings and train the final classifier on them."""
    config, dataset = session.config, session.dataset
    shape = encoding_shape_of(config)
    common = config.share == "updates+encodings"
    nodes = {
        name: node for name, node in session.nodes.items() if session.book.accounts[name].status != EXCLUDED
    }

    def ask(part: str) -> dict[str, Upload | Refused]:
        held = {name: session.enrolments[name] for name in nodes}
        records = {
            name: told.records if part == "train" else told.test_records for name, told in held.items()
        }
        arrays = messages.to_arrays(encoder.state_dict()) if common else None
        where = str(session.run.path)
        return collect(session.grid, nodes, records, part, shape, dataset.spec.num_classes, where, arrays)

    train = ask("train")
    session.run.update(
        uploads={
            name: {"records": 0, "refused": upload.reason}
            if isinstance(upload, Refused)
            else {"records": len(upload.encodings)}
            for name, upload in train.items()
        }
    )
    taken = {name: upload for name, upload in train.items() if isinstance(upload, Upload)}
    if not taken:
        raise RuntimeError("no hospital uploaded encodings; summary.json says why, by hospital")
    known = np.concatenate([upload.encodings for upload in taken.values()])
    labels = np.concatenate([upload.labels for upload in taken.values() if upload.labels is not None])
    if trained is not None:
        test = encode(encoder, dataset.test.images)
        classifier, score = fit(config, known, labels, test, dataset.test.labels)
        return replace(trained, score=score, classifier=classifier)
    assert session.deal is not None  # share = encodings is refused in a deployment
    tested = {name: upload for name, upload in ask("test").items() if isinstance(upload, Upload)}
    originals, test_labels = pooled({name: session.deal.test[name] for name in tested})
    test = np.concatenate([upload.encodings for upload in tested.values()])
    classifier, score = fit(config, known, labels, test, test_labels)
    return Measured(score, None, similarity_of(originals, test), classifier)
