"""`fl-ppae audit-epsilon`: test the epsilon of one hospital's updates with canaries."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from fl_ppae.commands.output import notes, show, timed, warn
from fl_ppae.commands.prepared import Chosen, choose
from fl_ppae.commands.progress import rounds_bar
from fl_ppae.errors import UserError
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.reporting.tables import audit_table, title

if TYPE_CHECKING:
    from fl_ppae.epsilon_audit.verdicts import Finding

FEWEST_CANARIES = 20
NOTES = (
    "The adversary is a malicious server that sees every noised sum. It knows everything but the batches, "
    "the noise and which canaries are in. A server sees less: one encoder update per round.",
    "The audit trained on the hospital's records and threw the models away. Nothing left this machine and no "
    "run's ledger was charged.",
)


def command(arguments: argparse.Namespace) -> int:
    """Audit one hospital; 1 if its claim is refuted."""
    chosen = choose(arguments.simulation, arguments.overrides)
    _check(arguments, chosen)
    # Imported here: these take seconds, and a mistake should be reported at once.
    from fl_ppae.data.deal import Deal, hospital_names, make_deal
    from fl_ppae.data.sources import resolve
    from fl_ppae.epsilon_audit.trainings import Subject
    from fl_ppae.epsilon_audit.updates import audit_updates
    from fl_ppae.models.build import encoding_shape_of
    from fl_ppae.privacy.plan import plan_hospital

    config, scope = chosen.config, SCOPES[chosen.config.dp_scope]
    encoding_shape_of(config)
    canaries = _canaries(arguments, chosen)
    dataset = resolve(config)
    names = hospital_names(arguments.hospitals)
    name = names[arguments.hospital]
    deal = make_deal(dataset, config, names)
    own = deal.train[name]
    plan = plan_hospital(name, len(own), config)
    if plan.rounds == 0:
        raise UserError(f"target-epsilon = {config.target_epsilon:g} does not last one round of {name}")
    console = notes()
    for warning in plan.warnings:
        warn(console, warning)
    subject = Subject(
        arguments.hospital, arguments.hospitals, Deal(dataset, {name: own}, deal.seed, deal.shift_seed), plan
    )
    with (
        _progress(plan.rounds * arguments.trainings, console) as after_round,
        warnings.catch_warnings(),
    ):
        # torch warns of every module whose input needs no gradient, such as images.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        found = audit_updates(
            subject,
            config,
            canaries=canaries,
            trainings=arguments.trainings,
            confidence=arguments.confidence,
            claim=arguments.claim,
            after_round=after_round,
        )
    finding = found.sums
    document: dict[str, Any] = {
        "simulation": chosen.simulation.name,
        "data_source": dataset.source.label,
        "hospital": name,
        "dp_scope": scope.name,
        "formal": scope.formal,
        "records": len(own),
        "canaries": canaries,
        "trainings": arguments.trainings,
        "rounds": plan.rounds,
        "steps": plan.rounds * plan.steps_per_round,
        "sample_rate": plan.sample_rate,
        "noise_multiplier": plan.noise_multiplier,
        "delta": plan.delta,
        "confidence": arguments.confidence,
        "claimed": finding.claimed,
        "claimed_by": "ledger" if arguments.claim is None else "--claim",
        "lower_bound": finding.lower_bound,
        "lower_bound_from_weights": found.weights,
        "largest_possible": finding.largest_possible,
        "guesses": list(finding.made),
        "correct": list(finding.right),
        "controls": finding.control_verdicts,
        "control_bounds": dict(finding.controls),
        "checks": found.checks,
        "verdict": finding.verdict,
        "explanation": _explanation(finding, formal=scope.formal, confidence=arguments.confidence),
        "seed": config.seed,
        "notes": list(NOTES),
    }
    heading = title(f"Audit of {name} in {chosen.simulation.name}", dataset.source.label)
    refuted = finding.verdict == "refuted"
    verdict = Text(document["explanation"], style="bold red" if refuted else "")
    show(document, [audit_table(document, heading), verdict, *map(Text, NOTES)], as_json=arguments.json)
    return 1 if refuted else 0


def _check(arguments: argparse.Namespace, chosen: Chosen) -> None:
    """Raise `UserError` for mistakes that show before any data is read."""
    if arguments.hospitals < 1:
        raise UserError(f"--hospitals {arguments.hospitals}: must be at least 1")
    if not 0 <= arguments.hospital < arguments.hospitals:
        raise UserError(f"--hospital {arguments.hospital}: must be from 0 to {arguments.hospitals - 1}")
    if arguments.trainings < 1:
        raise UserError(f"--trainings {arguments.trainings}: must be at least 1")
    if not 0.5 <= arguments.confidence < 1:
        raise UserError(f"--confidence {arguments.confidence:g}: must be at least 0.5 and below 1")
    if arguments.claim is not None and not (math.isfinite(arguments.claim) and arguments.claim >= 0):
        raise UserError(f"--claim {arguments.claim:g}: must be an epsilon of at least 0")
    if chosen.config.adversary != "none":
        raise UserError('the audit covers an honest hospital\'s training; use adversary = "none"')
    if chosen.config.dp_scope == "none":
        noised = ", ".join(scope.name for scope in SCOPES.values() if scope.noised)
        raise UserError(f"dp-scope none adds no noise and claims no epsilon; audit one of {noised}")


def _canaries(arguments: argparse.Namespace, chosen: Chosen) -> int:
    """The number of canaries, which must fit into the noised parameters."""
    from fl_ppae.epsilon_audit.canaries import COORDINATES, MOST_CANARIES, room
    from fl_ppae.epsilon_audit.updates import noised_shapes

    most = room(noised_shapes(chosen.config))
    if arguments.canaries is None:
        return min(most, MOST_CANARIES)
    if not FEWEST_CANARIES <= arguments.canaries <= most:
        raise UserError(
            f"--canaries {arguments.canaries}: must be from {FEWEST_CANARIES} to {most}, because each takes "
            f"{COORDINATES} of the numbers that dp-scope {chosen.config.dp_scope} noises"
        )
    return int(arguments.canaries)


def _explanation(finding: Finding, *, formal: bool, confidence: float) -> str:
    kind = "" if formal else "nominal "
    found = f"epsilon is at least {finding.lower_bound:.2f} at {100 * confidence:.4g} % confidence"
    if finding.lower_bound > finding.claimed:
        end = "which is a bug" if formal else "which was never a guarantee"
        return f"Refuted: {found}, above the {kind}{finding.claimed:.2f} that is claimed, {end}."
    if finding.failed:
        return f"Refuted: {'; '.join(finding.failed)}."
    claimed = f"the {kind}claim is {finding.claimed:.2f}"
    if finding.verdict == "consistent":
        return f"Consistent: {found}; {claimed}. That proves nothing, but each planted fault was found."
    missed = [name for name, verdict in finding.control_verdicts.items() if verdict != "refuted"]
    if missed:
        return f"Cannot tell: {found}; {claimed}, but {' and '.join(missed)} did not refute it either."
    most = f"{finding.largest_possible:.2f}"
    return f"Cannot tell: {found}; {claimed}, but perfect guesses would have shown only {most}."


@contextmanager
def _progress(rounds: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, lines elsewhere."""
    bar, say = rounds_bar(console), timed(console)
    task = bar.add_task("auditing", total=rounds)
    done = 0

    def after_round() -> None:
        nonlocal done
        done += 1
        bar.update(task, completed=done)
        if not console.is_terminal:
            say(f"round {done}/{rounds}" if done < rounds else f"round {done}/{rounds}, now the bounds")

    with bar:
        yield after_round
