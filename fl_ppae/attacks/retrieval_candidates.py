"""Which of N images an encoding shows, for an attacker who has the encoder and candidates for the image.

Three kinds of candidates: the images themselves, which find themselves in any code without noise; another
capture of each; and the images themselves for an attacker who compares them with inverted encodings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from fl_ppae.attacks.attack import SERVER_SPLIT, Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import overall_and_by_class
from fl_ppae.attacks.inversion import Fitted, fitted_black_box, known_pairs
from fl_ppae.attacks.needs import black_box_missing
from fl_ppae.attacks.scenes import before_noise
from fl_ppae.leakage.intervals import share
from fl_ppae.leakage.matching import fit_matcher, nearest, top1
from fl_ppae.leakage.recapture import recaptured
from fl_ppae.models.encoding import encode

NAME = "retrieval-candidates"


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Top-1 for each kind of candidates; guessing gives 1 / N."""
    attackers, plain = fitted_black_box(audited, threat_model)
    found = _found(audited, attackers, partial(before_noise, audited))
    initial = audited.initial_encoder
    undefended = _found(audited, plain, lambda images: torch.from_numpy(encode(initial, images)))

    def rows(positions: Tensor, group: str, among: int) -> list[Result]:
        return [
            result(
                NAME,
                attackers.scene.threat,
                metric,
                share(hits[positions].sum().item(), len(positions), among),
                chance=1 / len(hits),
                undefended=undefended[metric][positions].mean().item(),
                group=group,
            )
            for metric, hits in found.items()
        ]

    return overall_and_by_class(audited, attackers.scene, rows)


def _found(
    audited: AuditedRun, attackers: Fitted, encoded: Callable[[Tensor], Tensor]
) -> Mapping[str, Tensor]:
    """Hits (N,) by kind of candidates, which `encoded` encodes."""
    known, victims = known_pairs(attackers.scene), attackers.scene.victims
    again = partial(recaptured, any_way_up=audited.dataset.spec.any_way_up)

    def matched(own: Tensor, candidates: Tensor) -> Tensor:
        return top1(fit_matcher(known.encodings, encoded(own)), victims.encodings, encoded(candidates))

    inverted = attackers.inverters[0].decode(victims.encodings)
    return {
        "retrieval_known_top1": matched(known.images, victims.images),
        "retrieval_augmented_top1": matched(again(known.images), again(victims.images)),
        "retrieval_inverted_top1": top1(nearest(known.images), inverted, victims.images),
    }


ATTACK = Attack(
    NAME,
    "which of N candidate images an encoding shows: the images, another capture, inversions",
    "nearest neighbour, or canonical correlations (Hotelling 1936)",
    run,
    (SERVER_SPLIT,),
    (black_box_missing,),
)
