"""Every attack, in the order in which an audit runs them. A new one is a module and its two lines here."""

from __future__ import annotations

from fl_ppae.attacks import (
    adversarial_examples,
    dependence,
    gradient_inversion,
    hospital_inference,
    inversion_black_box,
    inversion_bound,
    inversion_generative,
    inversion_white_box,
    linkage,
    membership_classifier,
    membership_encoder,
    membership_updates,
    model_extraction,
    property_inference,
    retrieval,
    retrieval_candidates,
    similarity,
)
from fl_ppae.attacks.attack import Attack
from fl_ppae.errors import UserError, did_you_mean

ATTACKS: tuple[Attack, ...] = (
    similarity.ATTACK,
    retrieval.ATTACK,
    dependence.ATTACK,
    inversion_black_box.ATTACK,
    inversion_white_box.ATTACK,
    inversion_generative.ATTACK,
    inversion_bound.ATTACK,
    retrieval_candidates.ATTACK,
    linkage.ATTACK,
    hospital_inference.ATTACK,
    model_extraction.ATTACK,
    adversarial_examples.ATTACK,
    membership_classifier.ATTACK,
    membership_encoder.ATTACK,
    membership_updates.ATTACK,
    gradient_inversion.ATTACK,
    property_inference.ATTACK,
)


def choose_attacks(names: str) -> tuple[Attack, ...]:
    """The attacks in a comma-separated list, in the registry's order.

    Raises:
        UserError: the list is empty or names an unknown attack.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [attack.name for attack in ATTACKS]
    for name in wanted:
        if name not in known:
            raise UserError(f"unknown attack {name!r}{did_you_mean(name, known)}")
    if not wanted:
        raise UserError(f"--attacks names none; valid: {', '.join(known)}")
    return tuple(attack for attack in ATTACKS if attack.name in wanted)
