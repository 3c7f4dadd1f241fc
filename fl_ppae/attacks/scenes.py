"""Whose encodings are attacked, and which pairs of encodings and images the attacker holds.

Where only updates are shared, the encodings attacked are of the official test split, by the common
encoder. Where hospitals upload encodings, they are those uploads, of every hospital but the first: that
one is the colluding hospital. No image attacked is ever among the attacker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, MEASUREMENT, SERVER_SPLIT, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.noised_release import NoisedRelease
from fl_ppae.data.records import to_float
from fl_ppae.errors import UserError
from fl_ppae.leakage.inversion import Encode, Pairs
from fl_ppae.models.encoding import encode


@dataclass(frozen=True)
class Scene:
    """One threat model in one run.

    Attributes:
        words: the threat model as printed.
        known: what the attacker holds; the measurement holds nothing.
        victims: what is attacked; their images and labels are for scoring alone.
        encode: what made the victims' encodings, without the noise, differentiable; None where each is of
            its own hospital's encoder.
    """

    words: str
    known: Pairs | None
    victims: Pairs
    encode: Encode | None

    def through(self, encoder: nn.Module) -> Scene:
        """The same images through another encoder, plain: without defence."""
        known = None if self.known is None else _encoded(self.known.images, self.known.labels, encoder)
        victims = _encoded(self.victims.images, self.victims.labels, encoder)
        return Scene(self.words, known, victims, encoder)


def measurement(audited: AuditedRun) -> Scene:
    """The encodings attacked, beside their images."""
    return Scene(MEASUREMENT.name, None, _victims(audited), encode_of(audited, audited.encoder))


def black_box(audited: AuditedRun, threat_model: ThreatModel) -> Scene:
    """An attacker with pairs: its own images, as they look encoded.

    Raises:
        UserError: as `black_box_missing`.
    """
    _refuse(black_box_missing(audited, threat_model))
    if not audited.config.shares_encodings:
        known = _known(audited, threat_model, audited.encoder)
    elif threat_model == COLLUDING_HOSPITAL:
        known = _uploaded_pairs(audited, audited.hospitals[:1], audited.effort.pairs)
    else:
        known = _known(audited, threat_model, audited.encoder)
    return Scene(threat_model.name, known, _victims(audited), encode_of(audited, audited.encoder))


def white_box(audited: AuditedRun, threat_model: ThreatModel) -> Scene:
    """An attacker who also has the encoder and so can take gradients through it.

    Every participant has the common encoder. An encoder that never left its hospital is a stronger
    threat model, and its words say so; then one hospital is attacked, the second.

    Raises:
        UserError: as `white_box_missing`.
    """
    _refuse(white_box_missing(audited, threat_model))
    if audited.encoder is not None:
        return black_box(audited, threat_model)
    victim = audited.hospitals[1]
    encoder = audited.own_encoder(victim)
    known = _known(audited, threat_model, encoder)
    victims = _uploaded_pairs(audited, (victim,), audited.effort.victims)
    words = f"{threat_model.name}, STRONGER: has the encoder that never left {victim}"
    return Scene(words, known, victims, encode_of(audited, encoder))


def encode_of(audited: AuditedRun, encoder: nn.Module | None) -> Encode | None:
    """From images to what an encoder's hospital releases, but for the noise; differentiable."""
    if encoder is None or audited.release is None:
        return encoder
    return nn.Sequential(encoder, _WithoutNoise(audited.release))


class _WithoutNoise(nn.Module):
    def __init__(self, release: NoisedRelease) -> None:
        super().__init__()
        self._release = release

    def forward(self, encodings: Tensor) -> Tensor:
        return self._release.without_noise(encodings)


def through_known_encoder(audited: AuditedRun) -> tuple[str, Pairs, Encode]:
    """How to print the threat model, images whose encoder the attacker has, and `encode_of` it.

    It is the common encoder, or as a stronger threat model one that never left its hospital, the second.

    Raises:
        UserError: as `known_encoder_missing`.
    """
    _refuse(known_encoder_missing(audited, MEASUREMENT))
    if audited.encoder is not None:
        encode = encode_of(audited, audited.encoder)
        assert encode is not None
        return "has encoder and classifier", _victims(audited), encode
    victim = audited.hospitals[1]
    encode = encode_of(audited, audited.own_encoder(victim))
    assert encode is not None
    pairs = _uploaded_pairs(audited, (victim,), audited.effort.victims)
    return f"STRONGER: has the classifier and the encoder that never left {victim}", pairs, encode


def by_hospital(audited: AuditedRun, encoder: nn.Module | None) -> Mapping[str, Tensor]:
    """Encodings of each hospital's train part, (n, *encoding) each, as many of every hospital.

    By `encoder`; if that is None, as the run has them: uploaded, or by the common encoder.
    """
    held = {name: audited.records(name) for name in audited.hospitals}
    count = min(audited.effort.origins, *map(len, held.values()))
    encodings = {}
    for name, records in held.items():
        rows = _drawn(len(records), count)
        uploaded = audited.uploaded(name)
        if encoder is None and uploaded is not None:
            encodings[name] = torch.from_numpy(np.array(uploaded[rows]))
        else:
            through = encoder if encoder is not None else audited.encoder
            assert through is not None
            encodings[name] = torch.from_numpy(encode(through, records.images(rows)))
    return encodings


def black_box_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """Why this attacker has no pairs in this run; None if it has."""
    if threat_model == COLLUDING_HOSPITAL:
        return two_hospitals_missing(audited, threat_model)
    if audited.encoder is None:
        return "no one but its hospital has an encoder to make pairs with (share = encodings)"
    return uploads_missing(audited, threat_model)


def white_box_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """Why this attacker can't take gradients through the encoder; None if it can."""
    if audited.encoder is not None:
        return black_box_missing(audited, threat_model)
    missing = two_hospitals_missing(audited, threat_model)
    if missing is None and audited.own_encoder(audited.hospitals[1]) is None:
        return f"audit-only/ has no encoder of {audited.hospitals[1]}"
    return missing


def known_encoder_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """Why no attacker has an encoder; None if one has."""
    if audited.encoder is not None:
        return uploads_missing(audited, threat_model)
    return white_box_missing(audited, threat_model)


def classifier_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Why there is no classifier to attack; None if there is one."""
    return "the run left no classifier.safetensors" if audited.classifier is None else None


def two_hospitals_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Why hospitals can't be told apart or collude; None if there are two whose records are at hand."""
    if audited.deal is None:
        return "the hospitals were deployed: their records are not here"
    if len(audited.hospitals) < 2:
        return "there are not two hospitals" + (" with uploads" if audited.config.shares_encodings else "")
    return None


def uploads_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Why there are no uploads to attack in a run that shares encodings; None if there are."""
    if not audited.config.shares_encodings:
        return None
    if audited.deal is None:
        return "the hospitals were deployed: the images of their uploads are not here"
    return None if audited.hospitals else "no hospital uploaded encodings"


def _victims(audited: AuditedRun) -> Pairs:
    count = audited.effort.victims
    if not audited.config.shares_encodings:
        test = audited.dataset.test
        rows = _drawn(len(test), count)
        assert audited.encoder is not None
        return _encoded(to_float(test.images[rows]), torch.from_numpy(test.labels[rows]), audited.encoder)
    return _uploaded_pairs(audited, audited.hospitals[1:] or audited.hospitals, count)


def _known(audited: AuditedRun, threat_model: ThreatModel, encoder: nn.Module | None) -> Pairs:
    assert encoder is not None
    count = audited.effort.pairs
    if threat_model == SERVER_SPLIT:
        split = audited.dataset.val
        rows = _drawn(len(split), count)
        images, labels = to_float(split.images[rows]), torch.from_numpy(split.labels[rows])
        return _released(audited, _encoded(images, labels, encoder))
    records = audited.records(audited.hospitals[0])
    rows = _drawn(len(records), count)
    return _released(audited, _encoded(records.images(rows), records.labels(rows), encoder))


def _released(audited: AuditedRun, own: Pairs) -> Pairs:
    """The attacker's own pairs, with what the run did to encodings before they left."""
    if audited.release is None:
        return own
    encodings = audited.release.draw(own.encodings.numpy(), seed=0)
    return Pairs(own.images, torch.from_numpy(encodings), own.labels)


def _uploaded_pairs(audited: AuditedRun, hospitals: tuple[str, ...], count: int) -> Pairs:
    """Up to `count` pairs, as many of each hospital: what it uploaded, and of which image."""
    parts = []
    for name in hospitals:
        records, uploaded = audited.records(name), audited.uploaded(name)
        assert uploaded is not None
        if len(uploaded) != len(records):
            raise UserError(f"{name} has {len(records)} train records but uploaded {len(uploaded)} encodings")
        rows = _drawn(len(records), count // len(hospitals))
        encodings = torch.from_numpy(np.array(uploaded[rows]))
        parts.append(Pairs(records.images(rows), encodings, records.labels(rows)))
    return Pairs(
        torch.cat([part.images for part in parts]),
        torch.cat([part.encodings for part in parts]),
        torch.cat([part.labels for part in parts]),
    )


def _encoded(images: Tensor, labels: Tensor, encoder: nn.Module) -> Pairs:
    return Pairs(images, torch.from_numpy(encode(encoder, images)), labels)


def _drawn(records: int, count: int) -> np.ndarray:
    """The positions of up to `count` records, drawn once and for all: splits may be sorted by class."""
    rows = np.random.default_rng(records).permutation(records)[:count]
    return np.sort(rows)


def _refuse(missing: str | None) -> None:
    if missing is not None:
        raise UserError(missing)
