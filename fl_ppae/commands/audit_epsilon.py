"""`fl-ppae audit-epsilon`: test with canaries what one hospital's updates, encodings or labels claim."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.text import Text

from fl_ppae.commands.output import notes, show, warn
from fl_ppae.commands.prepared import Chosen, choose
from fl_ppae.errors import UserError
from fl_ppae.privacy.figures import formal_if, mark
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.protection import JOINT, SECAGG
from fl_ppae.reporting.tables import audit_table, title
from fl_ppae.steps import count, step

if TYPE_CHECKING:
    from fl_ppae.config import RunConfig
    from fl_ppae.epsilon_audit.verdicts import Finding

FEWEST_CANARIES = 20
JOINT_FIGURE, ALONE_FIGURE, OWN_FIGURE = "joint", "alone", "own"
UPDATES, ENCODINGS, LABELS = ARTEFACTS = ("updates", "encodings", "labels")
NOTES = {
    UPDATES: (
        "The adversary is a malicious server that sees every noised sum. It knows everything but the "
        "batches, the noise and which canaries are in. A server sees less: one encoder update per round.",
        "The audit trained on the hospital's records and threw the models away. Nothing left this machine "
        "and no run's ledger was charged.",
    ),
    ENCODINGS: (
        "Each record is one of two whose clipped encodings are opposite. A malicious server chose encoder "
        "and projection, and guesses each from its released encoding.",
        "No record of the simulation was read, and no run's ledger was charged.",
    ),
    LABELS: (
        "Each record has one of two labels; it is guessed from the released one.",
        "No record of the simulation was read, and no run's ledger was charged.",
    ),
}


def command(arguments: argparse.Namespace) -> int:
    """Audit one artefact of one hospital; 1 if its claim is refuted."""
    chosen = choose(arguments.simulation, arguments.overrides)
    _check(arguments, chosen)
    audit = _audit_updates if arguments.artefact == UPDATES else _audit_upload
    finding, document = audit(arguments, chosen)
    refuted = finding.verdict == "refuted"
    formal = document["formal"]
    figure = _figure(arguments, chosen.config)
    assumes = _assumption(chosen.config, figure)
    document |= {
        "claimed": finding.claimed,
        "claimed_by": "ledger" if arguments.claim is None else "--claim",
        "lower_bound": finding.lower_bound,
        "largest_possible": finding.largest_possible,
        "guesses": list(finding.made),
        "correct": list(finding.right),
        "controls": finding.control_verdicts,
        "control_bounds": dict(finding.controls),
        "verdict": finding.verdict,
        "figure": figure,
        "assumes": assumes.removeprefix(" if "),
        "explanation": _explanation(finding, assumes, formal=formal, confidence=arguments.confidence),
        "notes": _notes(chosen.config, arguments.artefact, figure),
    }
    heading = title(f"Audit of {document['hospital']} in {chosen.simulation.name}", document["data_source"])
    verdict = Text(document["explanation"], style="bold red" if refuted else "")
    lines = [verdict, *map(Text, document["notes"])]
    show(document, [audit_table(document, heading), *lines], as_json=arguments.json)
    return 1 if refuted else 0


def _notes(config: RunConfig, artefact: str, figure: str) -> list[str]:
    """What was audited, and what it costs."""
    adversary, cost = NOTES[artefact]
    if figure == JOINT_FIGURE:
        adversary = (
            f"The adversary is a malicious server that unmasks the sum of {config.honest_hospitals} honest "
            "hospitals, with which all others collude. It knows everything but the batches, the noise and "
            "which canaries are in. In the last control, one of two hospitals leaves its noise away."
        )
    elif figure == ALONE_FIGURE:
        adversary += " All other hospitals collude, so that it sees this one's own share of the noise alone."
    elif config.protection == SECAGG:
        adversary += " The updates of this run are masked; the audit reads what the hospital masks."
    return [adversary, cost]


def _assumption(config: RunConfig, figure: str) -> str:
    """What the audited epsilon assumes of the other hospitals, as it follows the number; mostly nothing."""
    if figure == ALONE_FIGURE:
        return " if all others collude"
    return mark(formal_if(config.honest_hospitals)) if figure == JOINT_FIGURE else ""


def _figure(arguments: argparse.Namespace, config: RunConfig) -> str:
    """Which epsilon is audited: of a joint sum, of the hospital's own share, or that of all its own noise."""
    if config.noise != JOINT:
        return OWN_FIGURE
    return arguments.figure or JOINT_FIGURE


def _audit_updates(arguments: argparse.Namespace, chosen: Chosen) -> tuple[Finding, dict[str, Any]]:
    # Imported here: these take seconds, and a mistake should be reported at once.
    from fl_ppae.data.deal import Deal, hospital_names, make_deal
    from fl_ppae.data.sources import resolve
    from fl_ppae.epsilon_audit.in_the_clear import in_the_clear, joint_sum
    from fl_ppae.epsilon_audit.trainings import Subject
    from fl_ppae.epsilon_audit.updates import audit_updates
    from fl_ppae.models.build import encoding_shape_of
    from fl_ppae.privacy.plan import plan_hospital

    config, scope = chosen.config, SCOPES[chosen.config.dp_scope]
    encoding_shape_of(config)
    canaries = _canaries(arguments, _room(chosen), f"numbers that dp-scope {scope.name} noises")
    dataset = resolve(config)
    names = hospital_names(arguments.hospitals)
    name = names[arguments.hospital]
    deal = make_deal(dataset, config, names)
    own = deal.train[name]
    planned = plan_hospital(name, len(own), config)
    joint = joint_sum(config, planned) if _figure(arguments, config) == JOINT_FIGURE else None
    config, plan = in_the_clear(config, planned)
    if plan.rounds == 0:
        raise UserError(f"target-epsilon = {config.target_epsilon:g} does not last one round of {name}")
    console = notes()
    for warning in plan.warnings:
        warn(console, warning)
    alone = Deal(dataset, {name: own}, deal.seed, deal.shift_seed)
    subject = Subject(arguments.hospital, arguments.hospitals, alone, plan, joint)
    with warnings.catch_warnings():
        # torch warns of every module whose input needs no gradient, such as images.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        found = audit_updates(
            subject,
            config,
            canaries=canaries,
            trainings=arguments.trainings,
            confidence=arguments.confidence,
            claim=arguments.claim,
            after_round=_counter("round", plan.rounds * arguments.trainings),
        )
    document = _described(arguments, chosen, canaries) | {
        "data_source": dataset.source.label,
        "dp_scope": scope.name,
        "formal": scope.formal,
        "records": len(own),
        "rounds": plan.rounds,
        "steps": plan.rounds * plan.steps_per_round,
        "sample_rate": plan.sample_rate,
        "noise_multiplier": plan.noise_multiplier if joint is None else planned.noise_multiplier,
        "lower_bound_from_weights": found.weights,
        "checks": found.checks,
    }
    return found.sums, document


def _audit_upload(arguments: argparse.Namespace, chosen: Chosen) -> tuple[Finding, dict[str, Any]]:
    from fl_ppae.epsilon_audit.canaries import MOST_CANARIES
    from fl_ppae.epsilon_audit.uploads import audit_encodings, audit_labels, upload_canaries
    from fl_ppae.models.build import encoding_shape_of

    config = chosen.config
    encoding_shape_of(config)
    canaries = MOST_CANARIES if arguments.canaries is None else arguments.canaries
    if canaries < FEWEST_CANARIES:
        raise UserError(f"--canaries {canaries}: must be at least {FEWEST_CANARIES}")
    made = []
    uploads = arguments.trainings if arguments.artefact == ENCODINGS else 1
    after_upload = _counter("upload", uploads)
    for number in range(uploads):
        made.append(upload_canaries(config, arguments.hospital, arguments.hospitals, canaries, number))
        after_upload()
    if arguments.artefact == ENCODINGS:
        finding = audit_encodings(made, arguments.confidence, config.target_delta, arguments.claim)
    else:
        finding = audit_labels(made[0], arguments.confidence, config.seed, arguments.claim)
    document = _described(arguments, chosen, canaries) | {
        "data_source": "canaries alone",
        "dp_scope": config.dp_scope,
        "formal": True,
        "records": canaries,
        "trainings": uploads,
        "delta": config.target_delta if arguments.artefact == ENCODINGS else 0.0,
        "checks": {},
    }
    return finding, document


def _described(arguments: argparse.Namespace, chosen: Chosen, canaries: int) -> dict[str, Any]:
    return {
        "simulation": chosen.simulation.name,
        "hospital": f"hospital-{arguments.hospital}",
        "artefact": arguments.artefact,
        "canaries": canaries,
        "trainings": arguments.trainings,
        "delta": chosen.config.target_delta,
        "confidence": arguments.confidence,
        "seed": chosen.config.seed,
    }


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
    config = chosen.config
    if arguments.figure and (config.noise != JOINT or arguments.artefact != UPDATES):
        raise UserError(f'--figure {arguments.figure} is for the updates of a run with noise = "joint"')
    if config.adversary != "none":
        raise UserError('the audit covers an honest hospital\'s training; use adversary = "none"')
    if arguments.artefact == UPDATES and config.dp_scope == "none":
        noised = ", ".join(scope.name for scope in SCOPES.values() if scope.noised)
        raise UserError(f"dp-scope none adds no noise and claims no epsilon; audit one of {noised}")
    for artefact, key, budget in (
        (ENCODINGS, "encoding-noise-epsilon", config.encoding_noise_epsilon),
        (LABELS, "label-epsilon", config.label_epsilon),
    ):
        if arguments.artefact == artefact and not (config.shares_encodings and budget):
            raise UserError(
                f"this run claims no epsilon for {artefact}; set {key}, and share = encodings or "
                "updates+encodings"
            )


def _room(chosen: Chosen) -> int:
    from fl_ppae.epsilon_audit.canaries import room
    from fl_ppae.epsilon_audit.updates import noised_shapes

    return room(noised_shapes(chosen.config))


def _canaries(arguments: argparse.Namespace, most: int, what: str) -> int:
    """The number of canaries in the updates, at most `most`."""
    from fl_ppae.epsilon_audit.canaries import COORDINATES, MOST_CANARIES

    if arguments.canaries is None:
        return min(most, MOST_CANARIES)
    if not FEWEST_CANARIES <= arguments.canaries <= most:
        raise UserError(
            f"--canaries {arguments.canaries}: must be from {FEWEST_CANARIES} to {most}, because each takes "
            f"{COORDINATES} of the {what}"
        )
    return int(arguments.canaries)


def _explanation(finding: Finding, assumes: str, *, formal: bool, confidence: float) -> str:
    kind = "" if formal else "nominal "
    found = f"epsilon is at least {finding.lower_bound:.2f} at {100 * confidence:.4g} % confidence"
    if finding.lower_bound > finding.claimed:
        end = "which is a bug" if formal else "which was never a guarantee"
        return f"Refuted: {found}, above the {kind}{finding.claimed:.2f} that is claimed{assumes}, {end}."
    if finding.failed:
        return f"Refuted: {'; '.join(finding.failed)}."
    claimed = f"the {kind}claim is {finding.claimed:.2f}{assumes}"
    if finding.verdict == "consistent":
        return f"Consistent: {found}; {claimed}. That proves nothing, but each planted fault was found."
    missed = [name for name, verdict in finding.control_verdicts.items() if verdict != "refuted"]
    if missed:
        return f"Cannot tell: {found}; {claimed}, but {' and '.join(missed)} did not refute it either."
    most = f"{finding.largest_possible:.2f}"
    return f"Cannot tell: {found}; {claimed}, but perfect guesses would have shown only {most}."


def _counter(what: str, total: int) -> Callable[[], None]:
    """To be called after each of `total` parts."""
    numbers = iter(range(1, total + 1))

    def after_one() -> None:
        done = next(numbers)
        count(done, total)
        step(f"{what} {done}/{total}{', now the bounds' if done == total else ''}", aloud=True)

    return after_one
