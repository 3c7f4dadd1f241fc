"""`fl-ppae audit-epsilon`: train canaries into one hospital and bound its epsilon from below."""

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
    from fl_ppae.epsilon_audit.bounds import Bound

NOTES = (
    "The adversary sees every noised step of the hospital and the model at each step, and knows the canaries "
    "and all other records, but not which canaries are included. The server sees less: one encoder update "
    "per round.",
    "The audit trained on the hospital's records and threw the model away. Nothing left this machine and no "
    "run's ledger was charged.",
)


def command(arguments: argparse.Namespace) -> int:
    """Audit one hospital; 1 if the bound is above what is claimed."""
    chosen = choose(arguments.simulation, arguments.overrides)
    _check(arguments, chosen)
    # Imported here: these take seconds, and a mistake should be reported at once.
    from fl_ppae.data.deal import hospital_names, make_deal
    from fl_ppae.data.sources import resolve
    from fl_ppae.epsilon_audit.canary_training import AuditedHospital, audit_hospital
    from fl_ppae.models.build import encoding_shape_of
    from fl_ppae.privacy.plan import plan_hospital

    config, scope = chosen.config, SCOPES[chosen.config.dp_scope]
    encoding_shape_of(config)
    dataset = resolve(config)
    names = hospital_names(arguments.hospitals)
    name = names[arguments.hospital]
    own = make_deal(dataset, config, names).train[name]
    plan = plan_hospital(name, len(own) + arguments.canaries, config)
    if plan.rounds == 0:
        raise UserError(f"target-epsilon = {config.target_epsilon:g} does not last one round of {name}")
    claim = plan.epsilon_total if arguments.claim is None else arguments.claim
    assert claim is not None  # _check asks for --claim where the plan has no epsilon
    console = notes()
    for warning in (*plan.warnings, *_too_few(arguments, claim, plan.delta)):
        warn(console, warning)
    with _progress(plan.rounds, console) as after_round, warnings.catch_warnings():
        # torch warns of every module whose input needs no gradient, such as images.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        bound = audit_hospital(
            AuditedHospital(arguments.hospital, own, plan),
            config,
            canaries=arguments.canaries,
            confidence=arguments.confidence,
            after_round=after_round,
        )
    violated = bound.epsilon > claim
    document: dict[str, Any] = {
        "simulation": chosen.simulation.name,
        "data_source": dataset.source.label,
        "hospital": name,
        "dp_scope": scope.name,
        "records": len(own),
        "canaries": arguments.canaries,
        "rounds": plan.rounds,
        "steps": plan.rounds * plan.steps_per_round,
        "noise_multiplier": plan.noise_multiplier,
        "claimed_epsilon": claim,
        "claimed_by": "ledger" if arguments.claim is None else "--claim",
        "delta": plan.delta,
        "formal": scope.formal,
        "confidence": arguments.confidence,
        "guesses": bound.guesses,
        "correct": bound.correct,
        "epsilon_lower_bound": bound.epsilon,
        "refutable_epsilon": bound.refutable,
        "violated": violated,
        "verdict": _verdict(bound, claim, formal=scope.formal, confidence=arguments.confidence),
        "seed": config.seed,
        "notes": list(NOTES),
    }
    heading = title(f"Audit of {name} in {chosen.simulation.name}", dataset.source.label)
    verdict = Text(document["verdict"], style="bold red" if violated else "")
    show(document, [audit_table(document, heading), verdict, *map(Text, NOTES)], as_json=arguments.json)
    return 1 if violated else 0


def _check(arguments: argparse.Namespace, chosen: Chosen) -> None:
    """Raise `UserError` for mistakes that show before any data is read."""
    if arguments.hospitals < 1:
        raise UserError(f"--hospitals {arguments.hospitals}: must be at least 1")
    if not 0 <= arguments.hospital < arguments.hospitals:
        raise UserError(f"--hospital {arguments.hospital}: must be from 0 to {arguments.hospitals - 1}")
    if arguments.canaries < 2:
        raise UserError(f"--canaries {arguments.canaries}: must be at least 2")
    if not 0.5 <= arguments.confidence < 1:
        raise UserError(f"--confidence {arguments.confidence:g}: must be at least 0.5 and below 1")
    if arguments.claim is not None and not (math.isfinite(arguments.claim) and arguments.claim >= 0):
        raise UserError(f"--claim {arguments.claim:g}: must be an epsilon of at least 0")
    if chosen.config.adversary != "none":
        raise UserError('the audit covers an honest hospital\'s training; use adversary = "none"')
    if chosen.config.dp_scope == "none" and arguments.claim is None:
        raise UserError("dp-scope none claims no epsilon; give one to compare with: --claim E")


def _too_few(arguments: argparse.Namespace, claim: float, delta: float) -> list[str]:
    """A warning if even perfect guesses could not refute the claim."""
    from fl_ppae.epsilon_audit.bounds import MOST_CANARIES, canaries_needed, refutable

    most = refutable(arguments.canaries, confidence=arguments.confidence, delta=delta)
    if most > claim:
        return []
    needed = canaries_needed(claim, confidence=arguments.confidence, delta=delta)
    enough = f"nor could {MOST_CANARIES:,} canaries" if needed is None else f"about {needed:,} canaries could"
    return [
        f"{arguments.canaries:,} canaries refute at most epsilon {most:.2f} at delta {delta:g}, even with "
        f"perfect guesses, but {claim:.2f} is claimed ({enough})"
    ]


def _verdict(bound: Bound, claim: float, *, formal: bool, confidence: float) -> str:
    kind = "" if formal else " nominal"
    found = f"epsilon is at least {bound.epsilon:.2f} at {100 * confidence:.4g} % confidence"
    if bound.epsilon > claim:
        end = "which is a bug" if formal else "which was never a guarantee"
        return f"Refuted: {found}, above the{kind} {claim:.2f} that is claimed, {end}."
    power = "" if bound.refutable > claim else "; these canaries could not have refuted it"
    return f"Not refuted: {found}. That does not prove the{kind} {claim:.2f} that is claimed{power}."


@contextmanager
def _progress(rounds: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, lines elsewhere."""
    bar, say = rounds_bar(console), timed(console)
    task = bar.add_task("auditing", total=rounds)

    def after_round(server_round: int) -> None:
        bar.update(task, completed=server_round)
        if not console.is_terminal:
            say(f"round {server_round}/{rounds}")

    with bar:
        yield after_round
