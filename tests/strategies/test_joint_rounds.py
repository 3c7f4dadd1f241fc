"""Rounds with joint noise: the sum is exact, its noise is that of all shares, and the charge is fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from masked_federation import JOINT, LATE, Federation, lost, lying_to, with_record

from fl_ppae.hospital.identity import Identity
from fl_ppae.hospital.one_step import one_step
from fl_ppae.hospital.simulated import read_dealt
from fl_ppae.hospital.training import round_terms
from fl_ppae.messages import SECAGG, TRAIN
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.events import JointGaussian
from fl_ppae.privacy.randomness import streams
from strategies.server_optimiser import ServerAdam


def gradients_of(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """What the server's optimiser is given from here on."""
    step, seen = ServerAdam.step, list[dict[str, np.ndarray]]()

    def spy(self: ServerAdam, weights: Any, gradient: Any) -> Any:
        seen.append({name: np.array(value) for name, value in gradient.items()})
        return step(self, weights, gradient)

    monkeypatch.setattr(ServerAdam, "step", spy)
    return seen


def test_the_sum_of_joint_noise_is_that_of_the_hospitals_own_sums_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path / "joint", **JOINT)
    seen = gradients_of(federation, monkeypatch)
    assert federation.round()
    total = dict.fromkeys(federation.shapes, 0.0)
    for index, (name, plan) in enumerate(federation.plans.items()):
        model = local_model_of(federation.config)
        records, _ = read_dealt(federation.directory(name), Identity(name, index, 4, False))
        drawn = streams(federation.config.seed, index, 1)
        sums, _ = one_step(model, records, round_terms(plan, federation.config), drawn)
        total = {key: total[key] + one.numpy() for key, one in zip(total, sums, strict=True)}
    expected_batch = 0.5 * sum(plan.records for plan in federation.plans.values())
    for key, value in seen[0].items():
        assert np.array_equal(value, total[key] / expected_batch)


@pytest.mark.parametrize("missing", [(), (LATE,)])
def test_joint_noise_has_the_size_of_all_shares_in_the_sum_and_never_less_than_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    keys = {**JOINT, "noise_multiplier": 100.0, "max_grad_norm": 0.1}
    federation = Federation(tmp_path / "joint", tamper=lost(*((TRAIN, name) for name in missing)), **keys)
    seen = gradients_of(federation, monkeypatch)
    assert federation.round()
    present = [plan for name, plan in federation.plans.items() if name not in missing]
    drawn = np.concatenate([value.ravel() for value in seen[0].values()])
    drawn *= 0.5 * sum(plan.records for plan in present) / 0.1
    assert float(drawn.std()) == pytest.approx(100 * (len(present) / 2) ** 0.5, rel=4 / len(drawn) ** 0.5)
    (event,) = federation.events("hospital-0")
    assert event == JointGaussian(100.0, 2, 0.5, 1, 1), "the same, whoever is lost"


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_a_joint_share_goes_into_no_other_ring_than_that_of_its_noise(tmp_path: Path, step: float) -> None:
    def lie(message: Message) -> Message:
        record = ConfigRecord({**message.content[SECAGG], "step": step * message.content[SECAGG]["step"]})
        return with_record(message, SECAGG, record)

    federation = Federation(tmp_path / "joint", tamper=lying_to(LATE, TRAIN, lie), **JOINT)
    assert federation.round()
    assert "the step of the ring is" in federation.reason(LATE)
    assert federation.events(LATE) == ()
