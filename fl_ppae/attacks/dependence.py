"""Distance correlation and linear CKA of images and encodings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import overall_and_by_class
from fl_ppae.attacks.needs import uploads_missing
from fl_ppae.attacks.scenes import measurement
from fl_ppae.leakage.dependence import distance_correlation, distances, linear_cka, products
from fl_ppae.leakage.intervals import jackknife

NAME = "dependence"
_METRICS = {
    "distance_correlation": (distances, distance_correlation),
    "linear_cka": (products, linear_cka),
}
_LEAST = 40  # pairs in a class; fewer give no interval


@dataclass(frozen=True)
class _Compared:
    """One metric's (N, N) matrix of the images, of their encodings, and of those without defence."""

    images: Tensor
    encodings: Tensor
    plain: Tensor
    combine: Callable[[Tensor, Tensor], float]


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """Both metrics; chance is their value for encodings paired with the wrong images."""
    scene = measurement(audited)
    plain = scene.through(audited.initial_encoder).victims
    compared = {
        metric: _Compared(
            matrix(scene.victims.images), matrix(scene.victims.encodings), matrix(plain.encodings), combine
        )
        for metric, (matrix, combine) in _METRICS.items()
    }

    def rows(positions: Tensor, group: str, among: int) -> list[Result]:
        if len(positions) < _LEAST:
            return []
        return [
            _row(metric, each, positions, scene.threat, group, among) for metric, each in compared.items()
        ]

    return overall_and_by_class(audited, scene, rows)


def _row(metric: str, compared: _Compared, positions: Tensor, threat: str, group: str, among: int) -> Result:
    images, encodings, plain = (
        matrix[positions][:, positions] for matrix in (compared.images, compared.encodings, compared.plain)
    )

    def statistic(kept: np.ndarray) -> float:
        return compared.combine(images[kept][:, kept], encodings[kept][:, kept])

    wrong = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return result(
        NAME,
        threat,
        metric,
        jackknife(statistic, len(images), among),
        chance=compared.combine(images, encodings[wrong][:, wrong]),
        undefended=compared.combine(images, plain),
        group=group,
    )


ATTACK = Attack(
    NAME,
    "statistical dependence of images and encodings, rotations included: distance correlation, linear CKA",
    "Szekely & Rizzo 2013; Kornblith et al. 2019 (arXiv:1905.00414)",
    run,
    (MEASUREMENT,),
    (uploads_missing,),
)
