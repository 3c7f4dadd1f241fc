"""The same rows for all victims and once more for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fl_ppae.attacks.attack import Findings, Result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.scenes import Scene

Rows = Callable[[Tensor, str, int], Iterable[Result]]
"""Results for the victims at these positions, the name of that group, and the number of such groups."""


def overall_and_by_class(audited: AuditedRun, scene: Scene, rows: Rows) -> Findings:
    """`rows` of all victims as results, and of each class as details."""
    return Findings(tuple(rows(torch.arange(len(scene.victims)), "all", 1)), by_class(audited, scene, rows))


def by_class(audited: AuditedRun, scene: Scene, rows: Rows) -> tuple[Result, ...]:
    """`rows` of every class that is among the victims; none if victims have label sets."""
    if audited.dataset.spec.multi_label:
        return ()
    names = audited.dataset.spec.class_names
    labels = scene.victims.labels.unique().tolist()
    found = (
        rows((scene.victims.labels == label).nonzero().flatten(), names[label], len(labels))
        for label in labels
    )
    return tuple(row for group in found for row in group)
