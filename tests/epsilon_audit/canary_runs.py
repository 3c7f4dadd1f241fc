"""A hospital, canaries, an audit with both, and noise of the wrong size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import records_of
from torch import Tensor

from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.sources import resolve
from fl_ppae.epsilon_audit.bounds import Bound
from fl_ppae.epsilon_audit.canaries import draw_canaries
from fl_ppae.epsilon_audit.canary_training import AuditedHospital, audit_hospital
from fl_ppae.hospital import training
from fl_ppae.hospital.training import TrainingTerms
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.randomness import Stream
from fl_ppae.privacy.scopes import SCOPES

CALIBRATED = {"noise_multiplier": 0.0, "target_delta": 1e-5, "batch_size": 250, "num_server_rounds": 2}
Small = Callable[..., RunConfig]


def audit(config: RunConfig, canaries: int = 200, hospitals: int = 1) -> tuple[Bound, float]:
    """The bound on hospital-0, and the epsilon that its plan claims."""
    own = make_deal(resolve(config), config, hospital_names(hospitals)).train["hospital-0"]
    plan = plan_hospital("hospital-0", len(own) + canaries, config)
    bound = audit_hospital(AuditedHospital(0, own, plan), config, canaries=canaries, confidence=0.95)
    return bound, plan.epsilon_total or 0.0


def scale_noise(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    add = training.add_noise

    def scaled(sums: list[Tensor], std: float, stream: Stream) -> list[Tensor]:
        return add(sums, std * factor, stream) if factor else sums

    monkeypatch.setattr(training, "add_noise", scaled)


def hospital(records: int = 40) -> HospitalRecords:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (records, 28, 28, 1)).astype(np.uint8)
    return records_of(images, np.arange(records) % 10)


def canaries(count: int = 20, dataset: str = "mnist") -> HospitalRecords:
    return draw_canaries(count, DATASETS[dataset], NO_SHIFT, np.random.default_rng(1))


def terms_of(scope: str, **changes: Any) -> TrainingTerms:
    values = {"noise_multiplier": 1.0, "max_grad_norm": 1e-3, "sample_rate": 0.3, "steps": 2}
    return TrainingTerms(
        SCOPES[scope], OBJECTIVES["reconstruction"], learning_rate=1e-3, **{**values, **changes}
    )
