"""Whose encodings are attacked, and which pairs of encodings and images the attacker holds.

Where only updates are shared, the encodings attacked are of the official test split, by the common
encoder. Where hospitals upload encodings, they are those uploads, of every hospital but the first: that
one is the colluding hospital. No image attacked is ever among the attacker's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, MEASUREMENT, SERVER_SPLIT, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords, Records
from fl_ppae.errors import UserError
from fl_ppae.leakage.inversion import Encode, Pairs
from fl_ppae.models.encoding import encode


@dataclass(frozen=True)
class Scene:
    """One threat model in one run.

    Attributes:
        words: the threat model as printed.
        known: the attacker's own pairs; None if it needs none.
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
    """An attacker with pairs: its own images, as they look encoded. Needs `black_box_missing`."""
    if audited.config.shares_encodings and threat_model == COLLUDING_HOSPITAL:
        known = _uploaded_pairs(audited, audited.hospitals[:1], audited.effort.pairs)
    else:
        known = _known(audited, threat_model, audited.encoder)
    return Scene(threat_model.name, known, _victims(audited), encode_of(audited, audited.encoder))


def white_box(audited: AuditedRun, threat_model: ThreatModel) -> Scene:
    """An attacker who also has the encoder and so can take gradients through it. Needs `white_box_missing`.

    Every participant has the common encoder. An encoder that never left its hospital is a stronger
    threat model, and its words say so; then one hospital is attacked, the second.
    """
    if audited.encoder is not None:
        return black_box(audited, threat_model)
    victim = audited.hospitals[1]
    encoder = audited.own_encoder(victim)
    known = _known(audited, threat_model, encoder)
    victims = _uploaded_pairs(audited, (victim,), audited.effort.victims)
    words = f"{threat_model.name}, STRONGER: has the encoder that never left {victim}"
    return Scene(words, known, victims, encode_of(audited, encoder))


def through_known_encoder(audited: AuditedRun) -> Scene:
    """An attacker who needs no pairs, but encoder and classifier. Needs `known_encoder_missing`.

    The encoder is the common one, or as a stronger threat model one that never left its hospital, the second.
    """
    if audited.encoder is not None:
        return replace(measurement(audited), words="has encoder and classifier")
    victim = audited.hospitals[1]
    words = f"STRONGER: has the classifier and the encoder that never left {victim}"
    victims = _uploaded_pairs(audited, (victim,), audited.effort.victims)
    return Scene(words, None, victims, encode_of(audited, audited.own_encoder(victim)))


def encode_of(audited: AuditedRun, encoder: nn.Module | None) -> Encode | None:
    """From images to what an encoder's hospital releases, but for the noise; differentiable."""
    release = audited.release
    if encoder is None or release is None:
        return encoder
    return lambda images: release.without_noise(encoder(images))


def drawn(records: int, count: int) -> np.ndarray:
    """The positions of up to `count` records, drawn once and for all: splits may be sorted by class."""
    rows = np.random.default_rng(records).permutation(records)[:count]
    return np.sort(rows)


def _victims(audited: AuditedRun) -> Pairs:
    count = audited.effort.victims
    if audited.config.shares_encodings:
        return _uploaded_pairs(audited, audited.hospitals[1:] or audited.hospitals, count)
    assert audited.encoder is not None
    return _some_encoded(_whole(audited.dataset.test), count, audited.encoder)


def _known(audited: AuditedRun, threat_model: ThreatModel, encoder: nn.Module | None) -> Pairs:
    """The attacker's own pairs, with what the run did to encodings before they left."""
    assert encoder is not None
    server = threat_model == SERVER_SPLIT
    records = _whole(audited.dataset.val) if server else audited.records(audited.hospitals[0])
    own = _some_encoded(records, audited.effort.pairs, encoder)
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
        rows = drawn(len(records), count // len(hospitals))
        encodings = torch.from_numpy(np.array(uploaded[rows]))
        parts.append(Pairs(records.images(rows), encodings, records.labels(rows)))
    return Pairs(
        torch.cat([part.images for part in parts]),
        torch.cat([part.encodings for part in parts]),
        torch.cat([part.labels for part in parts]),
    )


def _whole(split: Split) -> Records:
    return HospitalRecords(split, np.arange(len(split)))


def _some_encoded(records: Records, count: int, encoder: nn.Module) -> Pairs:
    rows = drawn(len(records), count)
    return _encoded(records.images(rows), records.labels(rows), encoder)


def _encoded(images: Tensor, labels: Tensor, encoder: nn.Module) -> Pairs:
    return Pairs(images, torch.from_numpy(encode(encoder, images)), labels)
