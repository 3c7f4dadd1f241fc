"""Inversion by gradient descent through the encoder, from the black-box reconstruction."""

from __future__ import annotations

from fl_ppae.attacks.attack import INVERSION_MODELS, Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.inversion import Fitted, fit, fitted_black_box, held, inversion_findings
from fl_ppae.attacks.needs import white_box_missing
from fl_ppae.attacks.scenes import white_box
from fl_ppae.leakage.inversion import Inverter, white_box_inverter

NAME = "inversion-white-box"


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """One attacker, who starts from the best black-box one and knows the encoder as well."""
    scene = white_box(audited, threat_model)
    if audited.encoder is not None:
        attackers, plain = fitted_black_box(audited, threat_model)
    else:
        audited.say(f"{scene.words}: fitting the attackers")
        attackers, plain = fit(audited, scene), fit(audited, scene.through(audited.initial_encoder))
    audited.say(f"{scene.words}: gradients through the encoder")
    inverter = _through_encoder(audited, attackers)
    undefended = _through_encoder(audited, plain).decode(plain.scene.victims.encodings)
    return inversion_findings(audited, NAME, scene, (inverter,), undefended)


def _through_encoder(audited: AuditedRun, attackers: Fitted) -> Inverter:
    encode = attackers.scene.encode
    assert encode is not None
    start, steps = attackers.inverters[0], audited.effort.gradient_steps
    return white_box_inverter(held(attackers.scene), encode, start, steps)


ATTACK = Attack(
    NAME,
    "images reconstructed by gradient descent through the known encoder, with a total-variation prior",
    "Mahendran & Vedaldi 2015 (arXiv:1412.0035)",
    run,
    INVERSION_MODELS,
    (white_box_missing,),
)
