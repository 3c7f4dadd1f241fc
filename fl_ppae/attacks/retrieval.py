"""How often an encoding finds its own image among all images."""

from __future__ import annotations

import torch

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import overall_and_by_class
from fl_ppae.attacks.needs import uploads_missing
from fl_ppae.attacks.similarity import measured
from fl_ppae.leakage.intervals import share

NAME = "retrieval"


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """Top-1 and top-5 by centred cosine; guessing gives 1 / N and 5 / N."""
    scene, pairs, undefended = measured(audited)

    def rows(positions: torch.Tensor, group: str, among: int) -> list[Result]:
        return [
            result(
                NAME,
                scene.threat,
                metric,
                share(getattr(pairs, metric)[positions].sum().item(), len(positions), among),
                chance=min(1.0, places / len(scene.victims)),
                undefended=getattr(undefended, metric)[positions].mean().item(),
                group=group,
            )
            for metric, places in (("retrieval_top1", 1), ("retrieval_top5", 5))
        ]

    return overall_and_by_class(audited, scene, rows)


ATTACK = Attack(
    NAME,
    "how often an encoding finds its own image among N by similarity: top-1, top-5",
    "nearest neighbour by centred cosine",
    run,
    (MEASUREMENT,),
    (uploads_missing,),
)
