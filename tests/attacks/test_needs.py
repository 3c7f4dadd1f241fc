"""An attack says what a run lacks."""

from __future__ import annotations

from collections.abc import Callable

from attacks.attacked import opened
from support import Run

from fl_ppae.attacks import (
    gradient_inversion,
    membership_classifier,
    membership_encoder,
    membership_updates,
    property_inference,
)
from fl_ppae.attacks.attack import Attack


def test_an_attack_says_what_a_run_lacks(federate: Callable[..., Run]):
    def reason(run: Run, attack: Attack) -> str | None:
        return attack.missing(opened(run), attack.threat_models[0])

    silent, alone = federate("silent"), federate("alone", share="encodings")
    for attack in (membership_updates.ATTACK, property_inference.ATTACK):
        assert "needs record-messages=true" in str(reason(silent, attack))
        assert "share = encodings" in str(reason(alone, attack))
    assert "server's split alone" in str(reason(silent, membership_classifier.ATTACK))
    assert "kept its encoder" in str(reason(alone, membership_encoder.ATTACK))
    assert reason(silent, membership_encoder.ATTACK) is None
    assert reason(alone, membership_classifier.ATTACK) is None
    assert reason(alone, gradient_inversion.ATTACK) is None
