"""Runs attacks on a finished run, one after another; what they found, and what was skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_ppae.attacks.attack import Attack, Result, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.kept_findings import KeptFindings
from fl_ppae.errors import Unmeasurable, UserError


@dataclass(frozen=True)
class Skipped:
    """An attack that could not be run, or could measure nothing, under one threat model, and why."""

    attack: str
    threat_model: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit; attributes as in `Findings`, over all attacks."""

    results: tuple[Result, ...]
    details: tuple[Result, ...]
    skipped: tuple[Skipped, ...]
    figures: Mapping[str, Callable[[Path], None]]


def run_attacks(
    audited: AuditedRun,
    attacks: Sequence[Attack],
    *,
    named: bool,
    attacker: str | None = None,
    kept: KeptFindings | None = None,
) -> Audit:
    """Run the attacks that this run allows.

    Args:
        audited: the run.
        attacks: in the order in which they run.
        named: the user asked for each of them, so one that can't run is an error rather than a skip.
        attacker: the threat model of attacks that have several; None for all of them.
        kept: of an audit that was interrupted; attacks that it finished are not run again.

    Raises:
        UserError: `named`, and one can't run under any of its threat models, or measures nothing.
    """
    skipped: list[Skipped] = []
    planned: list[tuple[Attack, ThreatModel]] = []
    for attack in attacks:
        missing = {model: attack.missing(audited, model) for model in attack.models(attacker)}
        if named and all(missing.values()):
            raise UserError(f"{attack.name} is not possible on {audited.stored.name}: {_first(missing)}")
        for model, reason in missing.items():
            if reason is None:
                planned.append((attack, model))
            else:
                skipped.append(Skipped(attack.name, model.name, reason))
    found = []
    for attack, model in planned:
        if kept is not None and (earlier := kept.find(attack, model)) is not None:
            audited.say(f"{attack.name}, {model.name}: finished before the audit was interrupted")
            found.append(earlier)
            continue
        audited.say(f"{attack.name}, {model.name}")
        try:
            findings = attack.run(audited, model)
            found.append(findings if kept is None else kept.keep(attack, model, findings))
        except Unmeasurable as reason:
            if named:
                raise
            skipped.append(Skipped(attack.name, model.name, str(reason)))
    return Audit(
        tuple(result for findings in found for result in findings.results),
        tuple(result for findings in found for result in findings.details),
        tuple(skipped),
        {name: draw for findings in found for name, draw in findings.figures.items()},
    )


def _first(missing: Mapping[ThreatModel, str | None]) -> str:
    return next(reason for reason in missing.values() if reason)
