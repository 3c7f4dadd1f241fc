"""The paper's cosine beside reference values."""

from __future__ import annotations

import torch

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import overall_and_by_class
from fl_ppae.attacks.needs import uploads_missing
from fl_ppae.attacks.scenes import Scene, measurement
from fl_ppae.leakage.intervals import t_mean
from fl_ppae.leakage.similarity import PairSimilarity, similarity_by_pair

NAME = "similarity"


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """Cosine and centred cosine; chance is the same for mismatched pairs."""
    scene, pairs, undefended = measured(audited)
    chances = {"cosine": pairs.cosine_mismatched, "cosine_centred": pairs.cosine_centred_mismatched}

    def rows(positions: torch.Tensor, group: str, among: int) -> list[Result]:
        return [
            result(
                NAME,
                scene.threat,
                metric,
                t_mean(getattr(pairs, metric)[positions].numpy(), among),
                chance=chance[positions].mean().item(),
                undefended=getattr(undefended, metric)[positions].mean().item(),
                group=group,
            )
            for metric, chance in chances.items()
        ]

    return overall_and_by_class(audited, scene, rows)


def measured(audited: AuditedRun) -> tuple[Scene, PairSimilarity, PairSimilarity]:
    """The attacked encodings, how similar they are to their images, and the same without defence."""
    scene = measurement(audited)
    pairs, plain = (
        similarity_by_pair(victims.images, victims.encodings)
        for victims in (scene.victims, scene.through(audited.initial_encoder).victims)
    )
    return scene, pairs, plain


ATTACK = Attack(
    NAME,
    "how similar encodings are to their images: cosine, plain and centred",
    "Wu et al. 2025 (LNCS 15256)",
    run,
    (MEASUREMENT,),
    (uploads_missing,),
)
