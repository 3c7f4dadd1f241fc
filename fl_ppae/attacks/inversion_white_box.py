"""Inversion by gradient descent through the encoder, from the black-box reconstruction."""

from __future__ import annotations

from fl_ppae.attacks.attack import INVERSION_MODELS, Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.inversion import Fitted, fit_attackers, fitted_black_box, inversion_findings, known_pairs
from fl_ppae.attacks.needs import white_box_missing
from fl_ppae.attacks.scenes import white_box
from fl_ppae.leakage.inversion import measured_on, own_pairs, white_box_inverter

NAME = "inversion-white-box"


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Gradient descent from the best black-box reconstruction, or a black-box attacker if it does better."""
    scene = white_box(audited, threat_model)
    if audited.encoder is not None:
        attackers, plain = fitted_black_box(audited, threat_model)
    else:
        audited.say(f"{scene.threat}: fitting the attackers")
        attackers, plain = (
            fit_attackers(audited, scene),
            fit_attackers(audited, scene.through(audited.initial_encoder)),
        )
    audited.say(f"{scene.threat}: gradients through the encoder")
    return inversion_findings(
        audited, NAME, _through_encoder(audited, attackers), _through_encoder(audited, plain)
    )


def _through_encoder(audited: AuditedRun, attackers: Fitted) -> Fitted:
    """The gradient attacker and those it may start from, all measured on the same pairs."""
    scene, starts = attackers.scene, attackers.inverters
    assert scene.encode is not None
    known, steps = known_pairs(scene), audited.effort.gradient_steps
    gradient = white_box_inverter(known, scene.encode, starts[0], steps)
    return Fitted(scene, (gradient, *measured_on(starts, own_pairs(known))))


ATTACK = Attack(
    NAME,
    "images reconstructed by gradient descent through the known encoder, with a total-variation prior",
    "Mahendran & Vedaldi 2015 (arXiv:1412.0035)",
    run,
    INVERSION_MODELS,
    (white_box_missing,),
)
