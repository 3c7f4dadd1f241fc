"""How often an encoding finds its own image among all."""

from __future__ import annotations

import torch

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import by_class
from fl_ppae.attacks.scenes import measurement, uploads_missing
from fl_ppae.leakage.intervals import wilson
from fl_ppae.leakage.similarity import similarity_by_pair

NAME = "retrieval"


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """Top-1 and top-5 by centred cosine; guessing gives 1 / N and 5 / N."""
    scene = measurement(audited)
    pairs = similarity_by_pair(scene.victims.images, scene.victims.encodings)
    plain = scene.through(audited.initial_encoder).victims
    undefended = similarity_by_pair(plain.images, plain.encodings)

    def rows(positions: torch.Tensor, group: str) -> list[Result]:
        return [
            result(
                NAME,
                scene.words,
                metric,
                wilson(getattr(pairs, metric)[positions].sum().item(), len(positions)),
                chance=min(1.0, places / len(scene.victims)),
                undefended=getattr(undefended, metric)[positions].mean().item(),
                group=group,
            )
            for metric, places in (("retrieval_top1", 1), ("retrieval_top5", 5))
        ]

    return Findings(tuple(rows(torch.arange(len(scene.victims)), "all")), by_class(audited, scene, rows))


ATTACK = Attack(
    NAME,
    "how often an encoding finds its own image among N by similarity: top-1, top-5",
    "nearest neighbour by centred cosine",
    run,
    (MEASUREMENT,),
    (uploads_missing,),
)
