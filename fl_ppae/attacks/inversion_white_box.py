"""Inversion by gradient descent through the encoder, from the black-box reconstruction."""

from __future__ import annotations

from fl_ppae.attacks.attack import INVERSION_MODELS, Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.inversion import Fitted, fit_attackers, fitted_black_box, inversion_findings, known_pairs
from fl_ppae.attacks.needs import white_box_missing
from fl_ppae.attacks.scenes import white_box
from fl_ppae.leakage.inversion import Inverter, white_box_inverter

NAME = "inversion-white-box"


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """One attacker that starts from the best black-box reconstruction and also knows the encoder."""
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
    inverter = _through_encoder(audited, attackers)
    undefended = _through_encoder(audited, plain).decode(plain.scene.victims.encodings)
    return inversion_findings(audited, NAME, scene, (inverter,), undefended)


def _through_encoder(audited: AuditedRun, attackers: Fitted) -> Inverter:
    encode = attackers.scene.encode
    assert encode is not None
    start, steps = attackers.inverters[0], audited.effort.gradient_steps
    return white_box_inverter(known_pairs(attackers.scene), encode, start, steps)


ATTACK = Attack(
    NAME,
    "images reconstructed by gradient descent through the known encoder, with a total-variation prior",
    "Mahendran & Vedaldi 2015 (arXiv:1412.0035)",
    run,
    INVERSION_MODELS,
    (white_box_missing,),
)
