"""An attribute that was not the task: which hospital an encoding came from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from fl_ppae.attacks.attack import Attack, Findings, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.scenes import by_hospital, two_hospitals_missing
from fl_ppae.leakage.attribute import infer_attribute
from fl_ppae.leakage.intervals import wilson

NAME = "hospital-inference"
KNOWN_ORIGIN = ThreatModel("known-origin", "knows which hospital half of the encodings came from")


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Train on half of each hospital's encodings, test on the other half; as many of every hospital."""
    hits = _hits(by_hospital(audited, None))
    plain = _hits(by_hospital(audited, audited.initial_encoder))
    names = audited.hospitals
    chance, undefended = 1 / len(names), float(plain.mean())
    row = result(
        NAME,
        threat_model.name,
        "accuracy",
        wilson(hits.sum(), hits.size),
        chance=chance,
        undefended=undefended,
    )
    details = [
        result(
            NAME,
            threat_model.name,
            "accuracy",
            wilson(own.sum(), own.size),
            chance=chance,
            undefended=float(own_plain.mean()),
            group=name,
        )
        for name, own, own_plain in zip(names, hits, plain, strict=True)
    ]
    return Findings((row,), tuple(details))


def _hits(encodings: Mapping[str, torch.Tensor]) -> np.ndarray:
    """(hospitals, n): whether the origin of each tested encoding was told rightly."""
    known, tested = zip(*(rows.chunk(2) for rows in encodings.values()), strict=True)
    count = min(map(len, tested))
    tested = tuple(rows[:count] for rows in tested)
    origins = torch.arange(len(tested)).repeat_interleave(count)
    held = torch.cat([torch.full((len(rows),), index) for index, rows in enumerate(known)])
    guesses = infer_attribute(torch.cat(known).numpy(), held.numpy(), torch.cat(tested).numpy())
    hits: np.ndarray = (guesses == origins.numpy()).reshape(len(tested), count)
    return hits


ATTACK = Attack(
    NAME,
    "which hospital an encoding came from, by a classifier of encodings",
    "attribute inference: Song & Shmatikov 2020 (arXiv:1905.11742)",
    run,
    (KNOWN_ORIGIN,),
    (two_hospitals_missing,),
)
