"""Which encodings are attacked, and which pairs of encodings and images the attacker holds.

If only updates are shared, the common encoder's encodings of the official test split are attacked. If
hospitals upload encodings, the uploads of every hospital but the first are attacked; the first is the
colluding hospital. The attacker never holds an image that is attacked.
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
from fl_ppae.models.codes import straight_through
from fl_ppae.models.encoding import encode


@dataclass(frozen=True)
class Scene:
    """One threat model in one run.

    Attributes:
        threat: the threat model as printed.
        known: the attacker's own pairs; None if it needs none.
        victims: what is attacked; their images and labels are for scoring alone.
        encode: the differentiable map that made the victims' encodings, but for the noise; None if each
            hospital has its own encoder.
        foreign: the attacker's pairs were made by another encoder than the victims' encodings.
    """

    threat: str
    known: Pairs | None
    victims: Pairs
    encode: Encode | None
    foreign: bool = False

    def through(self, encoder: nn.Module) -> Scene:
        """The same images through another encoder, as floats without noise: the undefended case."""
        known = None if self.known is None else _encoded(self.known.images, self.known.labels, encoder)
        victims = _encoded(self.victims.images, self.victims.labels, encoder)
        return Scene(self.threat, known, victims, encoder)


def measurement(audited: AuditedRun) -> Scene:
    """The attacked encodings and their images."""
    return Scene(MEASUREMENT.name, None, _victims(audited), encode_of(audited, audited.encoder))


def black_box(audited: AuditedRun, threat_model: ThreatModel) -> Scene:
    """An attacker with pairs of its own. Check `black_box_missing` first."""
    if audited.config.shares_encodings and threat_model == COLLUDING_HOSPITAL:
        known = _uploaded_pairs(audited, audited.hospitals[:1], audited.effort.pairs)
    else:
        known = _known(audited, threat_model, audited.encoder)
    encode = encode_of(audited, audited.encoder)
    return Scene(threat_model.name, known, _victims(audited), encode, foreign=encode is None)


def released(audited: AuditedRun, images: Tensor, labels: Tensor, encoder: nn.Module) -> Pairs:
    """Pairs as a hospital with this encoder releases them: noised or rounded, if the run does that."""
    return Pairs(images, released_once(audited, images, encoder), labels)


def released_once(audited: AuditedRun, images: Tensor, encoder: nn.Module, seed: int = 0) -> Tensor:
    """The encodings of `released`; `seed` of the noise that the attacker draws."""
    encodings = _through(encoder, images, audited.config.encoding_bits)
    if audited.release is None:
        return encodings
    return torch.from_numpy(audited.release.draw(encodings.numpy(), seed))


def before_noise(audited: AuditedRun, images: Tensor) -> Tensor:
    """Images as a hospital with the common encoder releases them, but for the noise."""
    assert audited.encoder is not None
    encodings = _through(audited.encoder, images, audited.config.encoding_bits)
    return encodings if audited.release is None else audited.release.without_noise(encodings)


def white_box(audited: AuditedRun, threat_model: ThreatModel) -> Scene:
    """An attacker who also has the encoder and its gradients. Check `white_box_missing` first.

    Every participant has the common encoder. An encoder that never left its hospital is a stronger
    threat model, and is printed as such; then one hospital is attacked, the second.
    """
    if audited.encoder is not None:
        return black_box(audited, threat_model)
    victim = audited.hospitals[1]
    encoder = audited.own_encoder(victim)
    known = _known(audited, threat_model, encoder)
    victims = _uploaded_pairs(audited, (victim,), audited.effort.victims)
    threat = f"{threat_model.name}, STRONGER: has the encoder that never left {victim}"
    return Scene(threat, known, victims, encode_of(audited, encoder))


def through_known_encoder(audited: AuditedRun) -> Scene:
    """An attacker with encoder and classifier but no pairs. Check `known_encoder_missing` first.

    The encoder is the common one or, in a stronger threat model, the second hospital's, which never left it.
    """
    if audited.encoder is not None:
        return replace(measurement(audited), threat="has encoder and classifier")
    victim = audited.hospitals[1]
    threat = f"STRONGER: has the classifier and the encoder that never left {victim}"
    victims = _uploaded_pairs(audited, (victim,), audited.effort.victims)
    return Scene(threat, None, victims, encode_of(audited, audited.own_encoder(victim)))


def encode_of(audited: AuditedRun, encoder: nn.Module | None) -> Encode | None:
    """From images to what an encoder's hospital releases, but for the noise; differentiable.

    Rounding has the gradient of the identity.
    """
    release, bits = audited.release, audited.config.encoding_bits
    if encoder is None:
        return None
    if release is not None:
        return lambda images: release.without_noise(encoder(images))
    return (lambda images: straight_through(encoder(images), bits)) if bits else encoder


def sample_positions(records: int, count: int) -> np.ndarray:
    """Sorted positions of up to `count` records, drawn with a fixed seed: splits may be sorted by class."""
    rows = np.random.default_rng(records).permutation(records)[:count]
    return np.sort(rows)


def _victims(audited: AuditedRun) -> Pairs:
    count = audited.effort.victims
    if audited.config.shares_encodings:
        return _uploaded_pairs(audited, audited.hospitals[1:] or audited.hospitals, count)
    assert audited.encoder is not None
    records = _whole(audited.dataset.test)
    rows = sample_positions(len(records), count)
    return released(audited, records.images(rows), records.labels(rows), audited.encoder)


def _known(audited: AuditedRun, threat_model: ThreatModel, encoder: nn.Module | None) -> Pairs:
    """The attacker's own pairs, noised as the run noises encodings."""
    assert encoder is not None
    server = threat_model == SERVER_SPLIT
    records = _whole(audited.dataset.val) if server else audited.records(audited.hospitals[0])
    rows = sample_positions(len(records), audited.effort.pairs)
    return released(audited, records.images(rows), records.labels(rows), encoder)


def _uploaded_pairs(audited: AuditedRun, hospitals: tuple[str, ...], count: int) -> Pairs:
    """Up to `count` pairs of images and uploaded encodings, equally many per hospital."""
    parts = []
    for name in hospitals:
        records, uploaded = audited.records(name), audited.uploaded(name)
        assert uploaded is not None
        if len(uploaded) != len(records):
            raise UserError(f"{name} has {len(records)} train records but uploaded {len(uploaded)} encodings")
        rows = sample_positions(len(records), count // len(hospitals))
        encodings = torch.from_numpy(np.array(uploaded[rows]))
        parts.append(Pairs(records.images(rows), encodings, records.labels(rows)))
    return Pairs(
        torch.cat([part.images for part in parts]),
        torch.cat([part.encodings for part in parts]),
        torch.cat([part.labels for part in parts]),
    )


def _whole(split: Split) -> Records:
    return HospitalRecords(split, np.arange(len(split)))


def _encoded(images: Tensor, labels: Tensor, encoder: nn.Module) -> Pairs:
    return Pairs(images, _through(encoder, images), labels)


def _through(encoder: nn.Module, images: Tensor, bits: int = 0) -> Tensor:
    return torch.from_numpy(encode(encoder, images, bits=bits))
