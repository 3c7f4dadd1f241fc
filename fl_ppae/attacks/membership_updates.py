"""Which records are behind a hospital's updates? Those whose gradients point where the updates go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.attack import Attack, Findings, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.membership import (
    Candidates,
    Scores,
    candidates_of,
    labels_of,
    membership_rows,
    roc_figure,
    words_of,
)
from fl_ppae.attacks.membership_encoder import fitted_partner
from fl_ppae.attacks.received import ReceivedRound, received_rounds, simulated_updates, updates_missing
from fl_ppae.attacks.shadows import fresh_model, without_dp
from fl_ppae.leakage.gradients import alignment, record_gradients
from fl_ppae.training import LocalModel

NAME = "membership-updates"
SERVER = ThreatModel(
    "server",
    "sees every hospital's update of every round, and has candidates with labels; "
    "knows the partner in round 1, later fits one to the validation split",
)


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Cosine of a record's descent direction with the first hospital's update, summed over rounds.

    A second attacker first subtracts the mean of the other hospitals' updates, which is what all share.
    Without defence: the same hospital's updates from the same encoders, simulated without DP.
    """
    victim = audited.hospitals[0]
    rounds = [each for each in received_rounds(audited, audited.effort.update_rounds) if victim in each.updates]
    candidates = candidates_of(audited, victim)
    updates = _attacked(victim, rounds, [each.updates[victim] for each in rounds])
    if audited.config.dp_scope != "none":
        audited.say(f"{NAME}: the same hospital without DP")
        records, config = candidates.members, without_dp(audited.config)
        simulated = simulated_updates(config, records, len(records), rounds, index=0)
        updates |= {f"{name}, plain": each for name, each in _attacked(victim, rounds, simulated).items()}
    scores = _aligned(audited, candidates, rounds, updates)
    attackers = {
        name: Scores(*candidates.split(each), _split(candidates, scores.get(f"{name}, plain")))
        for name, each in scores.items()
        if not name.endswith(", plain")
    }
    words = words_of(audited, threat_model)
    rows = [row for name, each in attackers.items() for row in membership_rows(NAME, words, name, each)]

    def draw(path: Path) -> None:
        roc_figure(audited, "Membership in a hospital's updates", attackers, path)

    return Findings(tuple(rows), (), {f"{NAME}.png": draw})


def victim_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Why the first hospital can't be attacked; None if it can."""
    file = audited.path / "received" / "round-1" / f"{audited.hospitals[0]}.safetensors"
    return None if file.exists() else f"{audited.hospitals[0]} sent no update in round 1"


def _split(candidates: Candidates, scores: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    return None if scores is None else candidates.split(scores)


def _attacked(
    victim: str, rounds: Sequence[ReceivedRound], updates: Sequence[Tensor]
) -> dict[str, list[Tensor]]:
    """What each attacker aligns records with, a tensor (P,) a round."""
    found = {"cosine": list(updates)}
    if all(len(each.updates) > 1 for each in rounds):
        others = [
            torch.stack([update for name, update in each.updates.items() if name != victim]).mean(0)
            for each in rounds
        ]
        found["cosine, less the others"] = [own - rest for own, rest in zip(updates, others, strict=True)]
    return found


def _aligned(
    audited: AuditedRun,
    candidates: Candidates,
    rounds: Sequence[ReceivedRound],
    updates: dict[str, list[Tensor]],
) -> dict[str, np.ndarray]:
    """Scores (N,) of all candidates, by attacker: the cosines' sum over rounds."""
    images = torch.cat([candidates.members.images(), candidates.others.images()])
    labels = labels_of(candidates)
    totals = {name: np.zeros(len(images)) for name in updates}
    for position, each in enumerate(rounds):
        audited.say(f"{NAME}, round {each.number}")
        first = each.number == 1
        partner = fresh_model(audited.config).partner if first else fitted_partner(audited, each.start)
        model = LocalModel(each.start, partner)
        start = 0
        for gradients in record_gradients(model, images, labels, audited.config.objective):
            rows = slice(start, start + len(gradients))
            for name, total in totals.items():
                total[rows] += alignment(gradients, updates[name][position]).numpy()
            start += len(gradients)
    return totals


ATTACK = Attack(
    NAME,
    "whether a hospital's updates came from a record: their cosine with the record's gradient, over rounds",
    "Nasr et al. 2019 (arXiv:1812.00910); Li et al. 2022 (arXiv:2212.04845)",
    run,
    (SERVER,),
    (updates_missing, victim_missing),
)
