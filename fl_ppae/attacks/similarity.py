"""The paper's cosine, beside what makes it readable."""

from __future__ import annotations

import torch

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import by_class
from fl_ppae.attacks.scenes import measurement, uploads_missing
from fl_ppae.leakage.intervals import bootstrap_mean
from fl_ppae.leakage.similarity import similarity_by_pair

NAME = "similarity"


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """Cosine and centred cosine; chance is the same for pairs that don't belong together."""
    scene = measurement(audited)
    pairs = similarity_by_pair(scene.victims.images, scene.victims.encodings)
    plain = scene.through(audited.initial_encoder).victims
    undefended = similarity_by_pair(plain.images, plain.encodings)
    chances = {"cosine": pairs.cosine_mismatched, "cosine_centred": pairs.cosine_centred_mismatched}

    def rows(positions: torch.Tensor, group: str) -> list[Result]:
        return [
            result(
                NAME,
                scene.words,
                metric,
                bootstrap_mean(getattr(pairs, metric)[positions].numpy()),
                chance=chance[positions].mean().item(),
                undefended=getattr(undefended, metric)[positions].mean().item(),
                group=group,
            )
            for metric, chance in chances.items()
        ]

    return Findings(tuple(rows(torch.arange(len(scene.victims)), "all")), by_class(audited, scene, rows))


ATTACK = Attack(
    NAME,
    "how similar encodings are to their images: cosine, plain and centred",
    "Wu et al. 2025 (LNCS 15256)",
    run,
    (MEASUREMENT,),
    (uploads_missing,),
)
