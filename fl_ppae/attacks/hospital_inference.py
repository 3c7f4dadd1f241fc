"""Attribute inference: which hospital an encoding came from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.attacks.attack import Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.needs import two_hospitals_missing
from fl_ppae.attacks.scenes import sample_positions
from fl_ppae.attacks.shadows import SEED
from fl_ppae.leakage.attribute import infer_attribute
from fl_ppae.leakage.intervals import share
from fl_ppae.models.encoding import encode

NAME = "hospital-inference"
KNOWN_ORIGIN = ThreatModel("known-origin", "knows which hospital half of the encodings came from")


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Train on a random half of each hospital's encodings, test on the other, equally many per hospital."""
    hits = _hits(_encodings(audited, None))
    plain = _hits(_encodings(audited, audited.initial_encoder))
    names = audited.hospitals

    def row(hits: np.ndarray, undefended: np.ndarray, group: str, among: int = 1) -> Result:
        return result(
            NAME,
            threat_model.name,
            "accuracy",
            share(hits.sum(), hits.size, among),
            chance=1 / len(names),
            undefended=float(undefended.mean()),
            group=group,
        )

    details = [
        row(own, own_plain, name, len(names)) for name, own, own_plain in zip(names, hits, plain, strict=True)
    ]
    return Findings((row(hits, plain, "all"),), tuple(details))


def _encodings(audited: AuditedRun, encoder: nn.Module | None) -> Mapping[str, Tensor]:
    """Encodings (n, *encoding) of each hospital's train part, equally many per hospital.

    They are made by `encoder`; if it is None, they are the run's: uploaded, or by the common encoder.
    """
    held = {name: audited.records(name) for name in audited.hospitals}
    count = min(audited.effort.origins, *map(len, held.values()))
    encodings = {}
    for name, records in held.items():
        rows = np.random.default_rng(SEED).permutation(sample_positions(len(records), count))  # to be halved
        uploaded = audited.uploaded(name)
        if encoder is None and uploaded is not None:
            encodings[name] = torch.from_numpy(np.array(uploaded[rows]))
        else:
            through = encoder if encoder is not None else audited.encoder
            bits = 0 if encoder is not None else audited.config.encoding_bits
            assert through is not None
            encodings[name] = torch.from_numpy(encode(through, records.images(rows), bits=bits))
    return encodings


def _hits(encodings: Mapping[str, Tensor]) -> np.ndarray:
    """(hospitals, n): whether the origin of each tested encoding was guessed correctly."""
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
