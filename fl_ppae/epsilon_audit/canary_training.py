"""Trains a hospital by its plan, with canaries, and bounds epsilon by guesses about them.

Threat model: the adversary sees every noised sum of the hospital's training and the model at each step,
knows the canaries and all other records, but not the batches, nor which canaries are included. The server
sees less: one encoder update per round. The guarantee covers this adversary, so a bound above the ledger's
epsilon is always a bug; what is found here may be weaker for the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import psutil

from fl_ppae.config import RunConfig
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.registry import DATASETS
from fl_ppae.epsilon_audit.bounds import Bound, best_bound
from fl_ppae.epsilon_audit.canaries import AuditedRecords, draw_canaries
from fl_ppae.epsilon_audit.scores import SPREAD, CanaryScores, gradient_numbers
from fl_ppae.errors import UserError
from fl_ppae.hardware import CPU, limited_threads
from fl_ppae.hospital.rounds import LocalTraining
from fl_ppae.hospital.training import round_terms
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.plan import HospitalPlan, planned_terms
from fl_ppae.privacy.randomness import FROM_ENTROPY, streams


@dataclass(frozen=True, eq=False)
class AuditedHospital:
    """The hospital that is audited.

    Attributes:
        index: among the hospitals, from 0; it seeds the randomness.
        own: its records.
        plan: for its own records and all canaries together.
    """

    index: int
    own: HospitalRecords
    plan: HospitalPlan


def audit_hospital(
    hospital: AuditedHospital,
    config: RunConfig,
    *,
    canaries: int,
    confidence: float,
    after_round: Callable[[int], None] = lambda _: None,
) -> Bound:
    """Train the hospital alone over all rounds that its plan affords and bound epsilon at its delta.

    The model is thrown away; nothing is written or sent.

    Raises:
        UserError: the canaries' gradients don't fit into memory.
    """
    model = local_model_of(config)
    terms = planned_terms(hospital.plan, config, run="audit")
    work = replace(round_terms(terms, config), device=CPU)  # the adversary's arithmetic is done there
    _check_memory(canaries + SPREAD, gradient_numbers(model, work))
    rng = np.random.default_rng(None if config.seed == FROM_ENTROPY else [config.seed, hospital.index])
    drawn = draw_canaries(canaries, DATASETS[config.dataset], hospital.own.shift, rng)
    included = rng.random(canaries) < 0.5
    records = AuditedRecords(hospital.own, drawn, included)
    with limited_threads(config.threads_per_hospital):
        scores = CanaryScores(model, hospital.own, drawn, work)
        draws = partial(streams, config.seed, hospital.index)
        training = LocalTraining(model, records, work, draws, observe=scores)
        training.train_rounds(hospital.plan.rounds, after_round)
        found = scores.scores()
    return best_bound(found, included, confidence=confidence, delta=hospital.plan.delta)


def _check_memory(rows: int, numbers: int) -> None:
    needed, free = 4 * rows * numbers, psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise UserError(
            f"{rows} gradients of {numbers:,} numbers take {needed / 2**30:.1f} GiB but "
            f"{free / 2**30:.1f} GiB are free: use fewer --canaries or a smaller autoencoder"
        )
