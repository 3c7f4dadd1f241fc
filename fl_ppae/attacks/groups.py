"""The same rows for all victims and once more for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fl_ppae.attacks.attack import Findings, Result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.scenes import Scene

Rows = Callable[[Tensor, str], Iterable[Result]]
"""Results for the victims at these positions, and the name of that group."""


def overall_and_by_class(audited: AuditedRun, scene: Scene, rows: Rows) -> Findings:
    """`rows` of all victims as results, and of each class as details."""
    return Findings(tuple(rows(torch.arange(len(scene.victims)), "all")), by_class(audited, scene, rows))


def by_class(audited: AuditedRun, scene: Scene, rows: Rows) -> tuple[Result, ...]:
    """`rows` of every class that is among the victims."""
    found: list[Result] = []
    for label, name in enumerate(audited.dataset.spec.class_names):
        positions = (scene.victims.labels == label).nonzero().flatten()
        if len(positions):
            found += rows(positions, name)
    return tuple(found)
