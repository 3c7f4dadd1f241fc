"""The same rows once more for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from fl_ppae.attacks.attack import Result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.scenes import Scene


def by_class(
    audited: AuditedRun, scene: Scene, rows: Callable[[Tensor, str], Iterable[Result]]
) -> tuple[Result, ...]:
    """`rows(positions, class name)` of every class that is among the victims."""
    found: list[Result] = []
    for label, name in enumerate(audited.dataset.spec.class_names):
        positions = (scene.victims.labels == label).nonzero().flatten()
        if len(positions):
            found += rows(positions, name)
    return tuple(found)
