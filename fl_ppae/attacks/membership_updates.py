"""Membership inference on a hospital's updates: members' gradients point where the updates go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.allowed import allowed_on_updates
from fl_ppae.attacks.attack import Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.membership import Candidates, Scores, candidates_of, membership_findings, threat_of
from fl_ppae.attacks.membership_encoder import fitted_partner
from fl_ppae.attacks.needs import one_class_missing, updates_missing
from fl_ppae.attacks.received import ReceivedRound, received_rounds, simulated_updates
from fl_ppae.attacks.shadows import without_dp
from fl_ppae.data.records import HospitalRecords
from fl_ppae.leakage.gradients import alignment, record_gradients, whitened
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import OBJECTIVES, LocalModel

NAME = "membership-updates"
SERVER = ThreatModel(
    "server",
    "sees every hospital's update of every round, and has candidates with labels; "
    "knows the partner in round 1, later fits one to the validation split",
)
COSINE, WHITENED = "cosine", "whitened cosine, less the others"
_POPULATION = 1000  # gradients of the validation split
_NUMBERS = 2**26  # in all of them: 256 MiB

Update = tuple[Tensor, Tensor]


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Cosine of a record's descent direction with the first hospital's updates, summed over rounds.

    A second attacker first subtracts the mean of the other hospitals' updates and damps what the gradients
    of the validation split have in common: members and non-members share both. Its result is that of round 1,
    in which the partner is known. Details are the other spans of rounds. Undefended is the same hospital,
    simulated without DP from the same encoders.
    """
    victim = audited.hospitals[0]
    rounds = received_rounds(audited, audited.effort.update_rounds)
    rounds = [each for each in rounds if victim in each.updates]
    candidates = candidates_of(audited, victim)
    runs = [_attacked(victim, rounds, [each.updates[victim] for each in rounds])]
    if audited.config.dp_scope != "none":
        audited.say(f"{NAME}: the same hospital without DP")
        records, config = candidates.members, without_dp(audited.config)
        simulated = simulated_updates(config, records, len(records), rounds, index=0)
        runs.append(_attacked(victim, rounds, simulated))
    found, *plain = [
        {name: candidates.split(scores) for name, scores in by_attacker.items()}
        for by_attacker in _aligned(audited, candidates, rounds, runs)
    ]
    attackers = {name: Scores(*each, plain[0][name] if plain else None) for name, each in found.items()}
    names = (f"{COSINE}, {_span(len(rounds))}", f"{WHITENED}, {_span(1)}")
    shown = {name: attackers.pop(name) for name in names}
    threat, title = threat_of(audited, threat_model), "Membership in a hospital's updates"
    allowed = allowed_on_updates(audited, victim)
    return membership_findings(audited, NAME, threat, title, shown, attackers, allowed)


def victim_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Why the first hospital can't be attacked; None if it can."""
    if audited.config.trains != "all":
        return f"updates are of a part of the encoder alone (trains = {audited.config.trains})"
    file = audited.path / "received" / "round-1" / f"{audited.hospitals[0]}.safetensors"
    return None if file.exists() else f"{audited.hospitals[0]} sent no update in round 1"


def _attacked(victim: str, rounds: Sequence[ReceivedRound], updates: Sequence[Tensor]) -> list[Update]:
    """For each round the victim's update, and that update minus the mean of the other hospitals'."""
    found = []
    for each, own in zip(rounds, updates, strict=True):
        others = [update for name, update in each.updates.items() if name != victim]
        found.append((own, own - torch.stack(others).mean(0) if others else own))
    return found


def _aligned(
    audited: AuditedRun, candidates: Candidates, rounds: Sequence[ReceivedRound], runs: Sequence[list[Update]]
) -> list[dict[str, np.ndarray]]:
    """Scores (N,) of all candidates by attacker and span of rounds, for each of `runs` (updates by round)."""
    objective, split = OBJECTIVES[audited.config.objective], audited.dataset.val
    images, labels = candidates.images(), candidates.labels()
    spans = sorted({1, len(rounds)})
    names = [f"{attacker}, {_span(span)}" for attacker in (COSINE, WHITENED) for span in spans]
    totals = [{name: np.zeros(len(images)) for name in names} for _ in runs]
    for position, each in enumerate(rounds):
        audited.say(f"{NAME}, round {each.number}")
        first = each.number == 1
        partner = local_model_of(audited.config).partner if first else fitted_partner(audited, each.start)
        model = LocalModel(each.start, partner)
        numbers = sum(parameter.numel() for parameter in each.start.parameters())
        known = np.random.default_rng(0).permutation(len(split))[: min(_POPULATION, _NUMBERS // numbers)]
        records = HospitalRecords(split, known)
        population = torch.cat([*record_gradients(model, records.images(), records.labels(), objective)])
        directions = [
            (own, whitened(less_others, population)) for own, less_others in (run[position] for run in runs)
        ]
        start = 0
        for gradients in record_gradients(model, images, labels, objective):
            rows = slice(start, start + len(gradients))
            for total, pair in zip(totals, directions, strict=True):
                for attacker, direction in zip((COSINE, WHITENED), pair, strict=True):
                    cosines = alignment(gradients, direction).numpy()
                    for span in spans:
                        if position < span:
                            total[f"{attacker}, {_span(span)}"][rows] += cosines
            start += len(gradients)
    return totals


def _span(rounds: int) -> str:
    return "round 1" if rounds == 1 else f"{rounds} rounds"


ATTACK = Attack(
    NAME,
    "whether a hospital's updates came from a record: their cosine with the record's gradient, over rounds",
    "Nasr et al. 2019 (arXiv:1812.00910); Li et al. 2022 (arXiv:2212.04845)",
    run,
    (SERVER,),
    (one_class_missing, updates_missing, victim_missing),
)
