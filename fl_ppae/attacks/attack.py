"""What an attack is, what it needs, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.leakage.intervals import Estimate


@dataclass(frozen=True)
class ThreatModel:
    """An attacker: what it knows and holds, in a few words."""

    name: str
    description: str


MEASUREMENT = ThreatModel("measurement", "no attacker: computed from images and encodings together")
SERVER_SPLIT = ThreatModel("server-split", "holds the official validation split")
COLLUDING_HOSPITAL = ThreatModel("colluding-hospital", "one hospital, with its own train part")
INVERSION_MODELS = (SERVER_SPLIT, COLLUDING_HOSPITAL)


@dataclass(frozen=True)
class Result:
    """One number that an attack measured.

    Attributes:
        threat_model: as printed: its name, and what the attacker knew in this run.
        low, high: 95 % confidence interval over images, or over hospitals; None if there is none. Those of
            several attackers, classes or hospitals in one attack hold together.
        chance: what an attacker reaches who sees nothing; for inversion, the mean image. None if undefined.
        class_chance: what one reaches who knows only the class; for inversion, the class-mean image.
        undefended: the same attack without defence: on plain encodings of the run's random initial encoder;
            for an attack on models or updates, without DP.
        allowed: of a membership attack, the most that the guarantee allows any test for one record; None
            without a guarantee.
        n: images (or encodings) attacked.
        variant: which of several attackers of one kind.
        group: "all", or the one class or hospital that it was measured on.
    """

    attack: str
    threat_model: str
    metric: str
    value: float
    low: float | None
    high: float | None
    chance: float | None
    undefended: float | None
    n: int
    class_chance: float | None = None
    allowed: float | None = None
    variant: str = ""
    group: str = "all"


@dataclass(frozen=True)
class Findings:
    """What one attack found under one threat model.

    Attributes:
        results: the table's rows.
        details: rows that are kept but not shown: single classes, attackers that were not the best.
        figures: how to draw each figure, by file name.
    """

    results: tuple[Result, ...]
    details: tuple[Result, ...] = ()
    figures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


Need = Callable[[AuditedRun, ThreatModel], str | None]
"""Why this run can't be attacked under this threat model, in one line; None if it can."""


@dataclass(frozen=True)
class Attack:
    """An attack as the registry lists it.

    Attributes:
        source: the paper it comes from.
        run: carries it out under one of its threat models.
        needs: checked before `run` is called.
    """

    name: str
    description: str
    source: str
    run: Callable[[AuditedRun, ThreatModel], Findings]
    threat_models: tuple[ThreatModel, ...]
    needs: tuple[Need, ...] = ()

    def models(self, attacker: str | None) -> tuple[ThreatModel, ...]:
        """The threat model named `attacker`, if the attack has it; else all that it has."""
        chosen = tuple(model for model in self.threat_models if model.name == attacker)
        return chosen or self.threat_models

    def missing(self, audited: AuditedRun, threat_model: ThreatModel) -> str | None:
        """The first need that this run doesn't meet; None if it meets all."""
        reasons = (need(audited, threat_model) for need in self.needs)
        return next((reason for reason in reasons if reason is not None), None)


def result(
    attack: str,
    threat_model: str,
    metric: str,
    estimate: Estimate,
    *,
    chance: float | None = None,
    undefended: float | None = None,
    class_chance: float | None = None,
    allowed: float | None = None,
    variant: str = "",
    group: str = "all",
) -> Result:
    """A `Result` of an estimate."""
    known = not math.isnan(estimate.low)
    return Result(
        attack,
        threat_model,
        metric,
        estimate.value,
        estimate.low if known else None,
        estimate.high if known else None,
        n=estimate.n,
        chance=chance,
        undefended=undefended,
        class_chance=class_chance,
        allowed=allowed,
        variant=variant,
        group=group,
    )
