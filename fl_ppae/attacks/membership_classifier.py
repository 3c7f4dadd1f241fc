"""Membership inference on the central classifier, by its loss and by comparison with shadow models."""

from __future__ import annotations

import numpy as np
import torch

from fl_ppae.attacks.allowed import allowed_on_classifier
from fl_ppae.attacks.attack import Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.membership import Scores, match_class_mix, membership_findings, threat_of
from fl_ppae.attacks.needs import classifier_missing, one_class_missing, uploads_missing
from fl_ppae.attacks.shadows import SEED, cached, shadow_count
from fl_ppae.data.records import HospitalRecords
from fl_ppae.leakage.membership import balanced_halves, relative_likelihood, with_shadows
from fl_ppae.models.encoding import encode
from fl_ppae.models.log_odds import cross_entropies
from fl_ppae.privacy.events import TEST_PART, TRAIN_PART
from fl_ppae.protection import COMMON_HEAD
from fl_ppae.runs.kept import digest
from fl_ppae.server.classification import (
    FittedClassifier,
    classifier_state,
    fit_and_score,
    restore_classifier,
)

NAME = "membership-classifier"
# Over an encoding, in the time of one record in an encoder's training.
_PASSES = {"lr": 1, "mlp": 5, "resnet18": 500}
CANDIDATE_HOLDER = ThreatModel(
    "candidate-holder",
    "has candidates with labels, their encodings and the classifier's probabilities; "
    "trains shadow classifiers on random halves of the candidates",
)


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Loss threshold and, if encodings and labels leave plain, RMIA and LiRA; chance is guessing.

    Nothing defends plain encodings, so undefended is the same number. A detail is RMIA on a classifier of the
    server's split, which saw no candidate. If that is away from chance, members and non-members differ by
    themselves.
    """
    assert audited.classifier is not None
    encodings, labels, members = _candidates(audited)
    losses = _losses(audited.classifier, encodings, labels)
    found = {"loss threshold": -losses}
    plain = not audited.config.encoding_noise_epsilon and not audited.config.label_epsilon
    unseen: dict[str, np.ndarray] = {}
    if plain and audited.effort.shadows:
        count = shadow_count(audited, _PASSES[audited.config.classifier] * len(labels) // 2)
        halves = balanced_halves(len(labels), count, SEED)
        shadows = _shadow_losses(audited, encodings, labels, halves)
        found |= with_shadows(losses, shadows, halves, nats=True)
        if audited.encoder is not None:
            control = _losses(_control(audited), encodings, labels)
            unseen["RMIA on a classifier of the server's split"] = relative_likelihood(control, shadows)
    threat = threat_of(audited, threat_model)
    if not audited.config.shares_updates and not plain:
        threat += ", has the very encodings that were released, STRONGER than one who has the image"
    attackers, controls = (
        {name: _split(scores, members, undefended=plain) for name, scores in scored.items()}
        for scored in (found, unseen)
    )
    title = "Membership in the classifier's records"
    allowed = allowed_on_classifier(audited)
    return membership_findings(audited, NAME, threat, title, attackers, controls, allowed)


def members_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Why the classifier has no members; None if it learned from hospitals' encodings."""
    if audited.config.classifier == COMMON_HEAD:
        return "the classifier is a part of the noised sums (classifier = head): audit-epsilon bounds them"
    if not audited.config.shares_encodings:
        return "the classifier learned from the server's split alone (share = updates)"
    alone = not audited.config.shares_updates
    if alone and not all(audited.uploads(name, TEST_PART) for name in audited.hospitals):
        return "not every hospital uploaded encodings of its test part"
    return None


def _candidates(audited: AuditedRun) -> tuple[np.ndarray, np.ndarray, int]:
    """The classifier's inputs (N, *encoding), true labels (N,), and how many are members: they come first."""
    assert audited.deal is not None
    train, test = (
        {name: dealt[name] for name in audited.hospitals} for dealt in (audited.deal.train, audited.deal.test)
    )
    labels = np.concatenate([records.labels().numpy() for records in train.values()])
    others = np.concatenate([records.labels().numpy() for records in test.values()])
    rows = match_class_mix(labels, others, len(labels))
    if not audited.config.shares_updates or audited.release is None:
        members = np.concatenate([_uploaded(audited, name, TRAIN_PART) for name in train])
    else:
        members = np.concatenate([_projected(audited, records) for records in train.values()])
    if not audited.config.shares_updates:
        unseen = np.concatenate([_uploaded(audited, name, TEST_PART) for name in test])
    else:
        unseen = np.concatenate([_projected(audited, records) for records in test.values()])
    return np.concatenate([members, unseen[rows]]), np.concatenate([labels, others[rows]]), len(members)


def _projected(audited: AuditedRun, records: HospitalRecords) -> np.ndarray:
    """Encodings by the common encoder; projected, without noise, if the run projects."""
    assert audited.encoder is not None
    encodings = encode(audited.encoder, records.images(), bits=audited.config.encoding_bits)
    if audited.release is None:
        return encodings
    return audited.release.without_noise(torch.from_numpy(encodings)).numpy()


def _uploaded(audited: AuditedRun, hospital: str, part: str) -> np.ndarray:
    encodings = audited.uploaded(hospital, part)
    assert encodings is not None
    return encodings


def _split(scores: np.ndarray, members: int, *, undefended: bool) -> Scores:
    inside, outside = scores[:members], scores[members:]
    return Scores(inside, outside, (inside, outside) if undefended else None)


def _shadow_losses(
    audited: AuditedRun, encodings: np.ndarray, labels: np.ndarray, halves: np.ndarray
) -> np.ndarray:
    """Losses (shadows, N) of classifiers that each learned from half of the candidates."""
    rows = []
    for index, inside in enumerate(halves):
        shadow = _fitted(audited, encodings[inside], labels[inside], SEED + index)
        rows.append(_losses(shadow, encodings, labels))
    return np.array(rows)


def _control(audited: AuditedRun) -> FittedClassifier:
    assert audited.encoder is not None
    split = audited.dataset.val
    encodings = encode(audited.encoder, split.images, bits=audited.config.encoding_bits)
    return _fitted(audited, encodings, np.array(split.labels), SEED)


def _fitted(audited: AuditedRun, encodings: np.ndarray, labels: np.ndarray, seed: int) -> FittedClassifier:
    """A classifier of the run's kind, from disk if it was fitted before."""
    name, classes = audited.config.classifier, audited.dataset.spec.num_classes

    def train() -> dict[str, torch.Tensor]:
        audited.say(f"training a shadow classifier on {len(labels)} encodings; kept for later audits")
        few, threads = slice(9), torch.get_num_threads()
        fitted, _ = fit_and_score(
            name, encodings, labels, encodings[few], labels[few], classes, seed, threads
        )
        return classifier_state(fitted)

    key = {"classifier": name, "learned": digest(encodings, labels), "classes": classes, "seed": seed}
    return restore_classifier(name, cached("classifier", key, train), classes)


def _losses(classifier: FittedClassifier, encodings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropies (N,) in nats."""
    scores = torch.from_numpy(classifier.scores(encodings))
    losses: np.ndarray = cross_entropies(scores, torch.from_numpy(labels)).numpy()
    return losses


ATTACK = Attack(
    NAME,
    "whether the classifier learned from a record: its loss, RMIA and LiRA with shadow classifiers",
    "Yeom et al. 2018 (arXiv:1709.01604); Zarifzadeh et al. 2024 (arXiv:2312.03262); "
    "Carlini et al. 2022 (arXiv:2112.03570)",
    run,
    (CANDIDATE_HOLDER,),
    (one_class_missing, classifier_missing, members_missing, uploads_missing),
)
