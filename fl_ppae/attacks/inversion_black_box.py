"""Inversion by attackers trained on pairs of encodings and images."""

from __future__ import annotations

from fl_ppae.attacks.attack import INVERSION_MODELS, Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.inversion import fitted_black_box, inversion_findings
from fl_ppae.attacks.needs import black_box_missing

NAME = "inversion-black-box"


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """A linear and a convolutional attacker and the mean image; the best on held-out pairs is the result."""
    attackers, plain = fitted_black_box(audited, threat_model)
    return inversion_findings(audited, NAME, attackers, plain)


ATTACK = Attack(
    NAME,
    "images reconstructed by attackers trained on pairs of encodings and images",
    "Dosovitskiy & Brox 2016 (arXiv:1506.02753); He et al. 2019 (ACSAC)",
    run,
    INVERSION_MODELS,
    (black_box_missing,),
)
