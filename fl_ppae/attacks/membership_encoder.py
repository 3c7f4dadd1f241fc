"""Membership inference on the common encoder, by a decoder or classifier that the attacker fits.

No decoder leaves a hospital. The attacker fits one to the server's split, as encoded by the encoder; its
loss on a candidate is the signal. If the objective learns labels, the attacker fits a classifier instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.attacks.allowed import allowed_on_updates
from fl_ppae.attacks.attack import Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun, frozen
from fl_ppae.attacks.membership import Candidates, Scores, candidates_of, membership_findings, threat_of
from fl_ppae.attacks.needs import encoder_missing, one_class_missing, public_images_missing
from fl_ppae.attacks.shadows import SEED, encoder_without_dp, shadow_count, shadow_encoder, without_dp
from fl_ppae.config import RunConfig
from fl_ppae.data.records import Positions, to_float
from fl_ppae.leakage.membership import balanced_halves, with_shadows
from fl_ppae.leakage.reconstruction import fit_decoder
from fl_ppae.models.build import autoencoder_of
from fl_ppae.models.encoding import encode
from fl_ppae.models.log_odds import cross_entropies
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.runs.kept import digest
from fl_ppae.server.classification import fit_and_score

NAME = "membership-encoder"
SERVER = ThreatModel(
    "server",
    "has the encoder, the validation split to fit a decoder or classifier to, and candidates with labels; "
    "trains shadow encoders on random halves of the candidates",
)
_STEPS = 300  # of the attacker's decoder
_DECODER_BATCH = 64  # an image takes it a quarter of the time that a record takes a shadow's training with DP


@dataclass(frozen=True, eq=False)
class _ShadowRecords:
    """The candidates that a shadow trains on, as one hospital's records."""

    candidates: Candidates
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, positions: Positions) -> Tensor:
        return self.candidates.images(self.rows[positions])

    def labels(self, positions: Positions) -> Tensor:
        return self.candidates.labels(self.rows[positions])


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Loss threshold, RMIA and LiRA on the first hospital's records; chance is guessing.

    A detail is the loss threshold on the random initial encoder, which saw no record. If that is away from
    chance, members and non-members differ by themselves.
    """
    assert audited.encoder is not None
    candidates = candidates_of(audited, audited.hospitals[0])
    images, labels = candidates.images(), candidates.labels()
    found = _attack(audited, audited.config, audited.encoder, candidates, images, labels)
    plain = {}
    if audited.config.dp_scope != "none" and audited.effort.shadows:
        config = without_dp(audited.config)
        plain = _attack(audited, config, encoder_without_dp(audited), candidates, images, labels)
    attackers = {
        name: Scores(*candidates.split(scores), candidates.split(plain[name]) if plain else None)
        for name, scores in found.items()
    }
    control = -attacker_losses(audited, audited.initial_encoder, images, labels)
    details = {"loss threshold on the random initial encoder": Scores(*candidates.split(control))}
    threat, title = threat_of(audited, threat_model), "Membership in the encoder's records"
    allowed = allowed_on_updates(audited, audited.hospitals[0])
    return membership_findings(audited, NAME, threat, title, attackers, details, allowed)


def _attack(
    audited: AuditedRun,
    config: RunConfig,
    encoder: nn.Module,
    candidates: Candidates,
    images: Tensor,
    labels: Tensor,
) -> dict[str, np.ndarray]:
    """Scores (N,) of all candidates by attacker."""
    losses = attacker_losses(audited, encoder, images, labels)
    if not audited.effort.shadows:
        return {"loss threshold": -losses}
    count = shadow_count(audited, _passes(config, len(candidates) // 2))
    halves = balanced_halves(len(candidates), count, SEED)
    shadows = []
    for index, inside in enumerate(halves):
        half = _ShadowRecords(candidates, np.flatnonzero(inside))
        what = digest(candidates.members.indices, candidates.others.indices, half.rows)
        shadow = shadow_encoder(audited, config, half, what, index)
        shadows.append(attacker_losses(audited, shadow, images, labels))
    nats = OBJECTIVES[config.objective].in_nats
    scores = with_shadows(losses, np.array(shadows), halves, nats=nats)
    return {"loss threshold": -losses, **scores}


def _passes(config: RunConfig, records: int) -> int:
    """How many records the training of a shadow and of its partner costs."""
    decoder = 0 if OBJECTIVES[config.objective].learns_labels else _STEPS * _DECODER_BATCH // 4
    return records * config.local_epochs * config.num_server_rounds + decoder


def attacker_losses(audited: AuditedRun, encoder: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """The loss (N,) of each image (N, C, H, W) under `encoder` and a partner fitted to the server's split."""
    partner, objective = fitted_partner(audited, encoder), OBJECTIVES[audited.config.objective]

    def loss(output: Tensor, some: Tensor, theirs: Tensor) -> Tensor:
        return cross_entropies(output, theirs) if objective.in_nats else objective.loss(output, some, theirs)

    with torch.inference_mode():
        parts = [
            loss(partner(encoder(some)), some, theirs)
            for some, theirs in zip(images.split(512), labels.split(512), strict=True)
        ]
    losses: np.ndarray = torch.cat(parts).double().numpy()
    return losses


def fitted_partner(audited: AuditedRun, encoder: nn.Module) -> nn.Module:
    """The attacker's decoder (from its public initial weights) or linear classifier of these encodings."""
    split = audited.dataset.val
    encodings = encode(encoder, split.images)
    if OBJECTIVES[audited.config.objective].learns_labels:
        labels, classes = np.asarray(split.labels), audited.dataset.spec.num_classes
        fitted, _ = fit_and_score("lr", encodings, labels, encodings[:9], labels[:9], classes, 0, 1)
        return frozen(nn.Sequential(_Standardised(fitted.mean, fitted.scale), fitted.network))
    steps, generator = min(_STEPS, audited.effort.network_steps), torch.Generator().manual_seed(SEED)
    decoder, images = autoencoder_of(audited.config).decoder, to_float(split.images)
    return frozen(fit_decoder(decoder, torch.from_numpy(encodings), images, steps, generator))


class _Standardised(nn.Module):
    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def forward(self, encodings: Tensor) -> Tensor:
        return (encodings - self.mean) / self.scale


ATTACK = Attack(
    NAME,
    "whether the common encoder learned from a record: loss of the attacker's decoder, RMIA and LiRA",
    "Yeom et al. 2018 (arXiv:1709.01604); Zarifzadeh et al. 2024 (arXiv:2312.03262); "
    "Carlini et al. 2022 (arXiv:2112.03570)",
    run,
    (SERVER,),
    (one_class_missing, encoder_missing, public_images_missing),
)
