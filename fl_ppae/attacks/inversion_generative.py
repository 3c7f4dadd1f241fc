"""Inversion with a prior: a generative model of the attacker's images, and encodings made to fit it."""

from __future__ import annotations

from fl_ppae.attacks.attack import INVERSION_MODELS, Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.inversion import Fitted, inversion_findings, known_pairs
from fl_ppae.attacks.needs import black_box_missing, common_encoder_missing
from fl_ppae.attacks.scenes import Scene, black_box
from fl_ppae.leakage.generative_inversion import direct_inverter, fit_latent_map, latent_inverter
from fl_ppae.leakage.image_prior import ImagePrior, fit_prior
from fl_ppae.leakage.inversion import mean_guess, own_pairs, white_box_inverter

NAME = "inversion-generative"


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Through the prior directly, by searching its latents, and by gradient descent from what that found."""
    scene = black_box(audited, threat_model)
    audited.say(f"{scene.threat}: fitting a prior")
    prior = fit_prior(known_pairs(scene).images, audited.effort.network_steps)
    attacked, plain = (
        _fitted(audited, each, prior) for each in (scene, scene.through(audited.initial_encoder))
    )
    return inversion_findings(audited, NAME, attacked, plain)


def _fitted(audited: AuditedRun, scene: Scene, prior: ImagePrior) -> Fitted:
    known, effort = known_pairs(scene), audited.effort
    assert scene.encode is not None
    latent_map = fit_latent_map(known, prior)
    direct = direct_inverter(known, latent_map, effort.network_steps)
    searched = latent_inverter(known, scene.encode, latent_map, effort.gradient_steps)
    gradient = white_box_inverter(known, scene.encode, searched, effort.gradient_steps)
    return Fitted(scene, (direct, searched, gradient, mean_guess(known, own_pairs(known))))


ATTACK = Attack(
    NAME,
    "images reconstructed with a generative prior, directly and by search in its latents",
    "Bora et al. 2017 (arXiv:1703.03208); Zhang et al. 2020 (arXiv:1911.07135)",
    run,
    INVERSION_MODELS,
    (black_box_missing, common_encoder_missing),
)
