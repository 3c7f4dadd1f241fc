"""`fl-ppae plan`: what each hospital would spend, without training."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from fl_ppae.commands.output import notes, show, warn
from fl_ppae.commands.prepared import choose, prepare
from fl_ppae.config import RunConfig
from fl_ppae.data.repeats import examine
from fl_ppae.models.build import released_format_of
from fl_ppae.models.codes import capacity_in_words
from fl_ppae.privacy.figures import formal_if
from fl_ppae.privacy.plan import make_plan, shared_noise_plan
from fl_ppae.privacy.repeated_records import in_words, planned_costs, repeated_in
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.protection import honest_of
from fl_ppae.reporting.tables import plan_table, title


def command(arguments: argparse.Namespace) -> int:
    """Show the plan with noise calibrated per hospital, and epsilon with the same noise for all."""
    chosen = choose(arguments.simulation, arguments.overrides)
    prepared = prepare(chosen, arguments.hospitals)
    config = chosen.config
    plan = make_plan(config, prepared.records)
    findings = examine(prepared.deal.dataset)
    costs = planned_costs(repeated_in(prepared.deal, config), plan, config)
    shared = shared_noise_plan(config, prepared.records)
    all_noised = bool(config.encoding_noise_epsilon and config.label_epsilon)
    scope, encoding = SCOPES[config.dp_scope], released_format_of(config)
    basis = formal_if(honest_of(config)) if honest_of(config) else scope.basis
    hospitals: list[dict[str, Any]] = [
        {
            **asdict(own),
            "epsilon_replace_one": own.epsilon_replace_one if all_noised else None,
            "epsilon_total_shared_noise": other.epsilon_total,
            "epsilon_basis": basis,
        }
        for own, other in zip(plan.hospitals, shared.hospitals, strict=True)
    ]
    document = {
        "simulation": chosen.simulation.name,
        "data_source": prepared.source.label,
        "dp_scope": scope.name,
        "formal": scope.formal,
        "target_epsilon": config.target_epsilon,
        "target_delta": config.target_delta,
        "encoding": {"numbers": encoding.numbers, "bits": encoding.bits, "carries_bits": encoding.capacity},
        "hospitals": hospitals,
        "data_findings": findings.document(),
        "repeated_records": [cost.document() for cost in costs],
        "warnings": list(plan.warnings),
    }
    heading = title(f"Plan of {chosen.simulation.name}", prepared.source.label)
    target = f"target epsilon {config.target_epsilon:g} at delta {config.target_delta:g}"
    terms = f"dp-scope {scope.name}, {target}"
    table = plan_table(hospitals, heading, terms, basis)
    show(document, [table], as_json=arguments.json)
    console = notes()
    if not scope.formal:
        console.print(f"dp-scope {scope.name}: {scope.note}", style="yellow", highlight=False)
    if config.shares_encodings and not all_noised:
        plain = [what for what, budget in _uploaded(config).items() if not budget]
        text = f"{' and '.join(plain)} leave plain: no guarantee for them or for what is learned from them"
        console.print(text, style="yellow", highlight=False)
    if config.shares_encodings and encoding.bits:
        console.print(capacity_in_words(encoding), highlight=False)
    for warning in (*plan.warnings, *findings.in_words(), *in_words(costs)):
        warn(console, warning)
    return 0


def _uploaded(config: RunConfig) -> dict[str, float]:
    """The contents of an upload, and the epsilon of the noise on each; 0 for none."""
    return {"encodings": config.encoding_noise_epsilon, "labels": config.label_epsilon}
