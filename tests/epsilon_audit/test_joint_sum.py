"""The audit of a joint sum: what is in it, that an honest one holds, and that a missing share is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from epsilon_audit.audited import CALIBRATED, subject_of
from scipy.stats import chi2
from support import real_data
from torch import Tensor

from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.epsilon_audit import joint_sum as joint_sums
from fl_ppae.epsilon_audit.in_the_clear import in_the_clear, joint_sum
from fl_ppae.epsilon_audit.joint_sum import ALL_BUT_ONE, JointSum
from fl_ppae.epsilon_audit.updates import UpdateFinding, audit_updates
from fl_ppae.epsilon_audit.verdicts import CONSISTENT, REFUTED
from fl_ppae.privacy.events import JointGaussian
from fl_ppae.privacy.noise import add_noise
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.randomness import seeded_stream

JOINT: dict[str, Any] = {
    **CALIBRATED,
    "protection": "secagg",
    "noise": "joint",
    "local_steps": 1,
    "sample_rate": 1.0,
    "dp_scope": "frozen-decoder",
    "honest_hospitals": 2,
}
NUMBERS = 40_000


def sum_of(config: RunConfig, records: int = 300) -> JointSum:
    return joint_sum(config, plan_hospital("hospital-0", records, config))


def noise_in_the_sum(joint: JointSum, others: int) -> np.ndarray:
    """(NUMBERS,) in standard deviations of the noise that the claim counts."""
    assert joint.terms.own_noise_multiplier is not None and joint.terms.noise_multiplier is not None
    share = joint.terms.own_noise_multiplier * joint.terms.max_grad_norm
    own = add_noise([torch.zeros(NUMBERS, dtype=torch.float64)], share, seeded_stream("own"))[0].numpy()
    return joint.seen(own, joint.streams(1, 0)[:others]) / (
        joint.terms.noise_multiplier * joint.terms.max_grad_norm
    )


@pytest.mark.parametrize("honest", [2, 5, 16, 20])
def test_the_noise_of_a_joint_sum_is_the_claims_and_one_share_less_is_seen(
    honest: int, small: Callable[..., RunConfig]
) -> None:
    joint = sum_of(small(**{**JOINT, "honest_hospitals": honest}))
    whole, less = (
        chi2.cdf(np.square(noise_in_the_sum(joint, others)).sum(), NUMBERS)
        for others in (honest - 1, honest - 2)
    )
    assert 1e-5 < whole < 1 - 1e-5
    assert less < 1e-9


def test_the_ring_shows_exactly_the_sum_of_all_parts(small: Callable[..., RunConfig]) -> None:
    joint = sum_of(small(**{**JOINT, "honest_hospitals": 4}))
    share = joint.terms.own_noise_multiplier * joint.terms.max_grad_norm  # type: ignore[operator]
    nothing = [torch.zeros(50, dtype=torch.float64)]
    own = add_noise([torch.linspace(-2, 2, 50).double()], share, seeded_stream("own"))[0].numpy()
    parts = [own, *(add_noise(nothing, share, stream)[0].numpy() for stream in joint.streams(1, 0))]
    assert len(parts) == 4
    np.testing.assert_array_equal(joint.seen(own, joint.streams(1, 0)), np.sum(parts, axis=0))
    other_training = joint.seen(own, joint.streams(1, 1))
    assert not (other_training == np.sum(parts, axis=0)).any()


def test_the_claim_is_what_a_hospital_of_the_joint_run_pays(small: Callable[..., RunConfig]) -> None:
    joint = sum_of(small(**JOINT))
    noise = joint.plan.noise_multiplier
    assert joint.events == tuple(JointGaussian(noise, 2, 1.0, 1, number) for number in (1, 2, 3, 4))


def audit(config: RunConfig, hospitals: int, canaries: int, trainings: int) -> UpdateFinding:
    """What an audit of the joint sum with hospital-0 in it finds."""
    planned = subject_of(config, hospitals)
    clear, plan = in_the_clear(config, planned.plan)
    subject = replace(planned, plan=plan, joint=joint_sum(config, planned.plan))
    return audit_updates(subject, clear, canaries=canaries, trainings=trainings, confidence=0.95)


def no_share(sums: list[Tensor], _std: float, _stream: object) -> list[Tensor]:
    return sums


@pytest.mark.slow
def test_a_federation_of_two_is_consistent_and_is_refuted_if_one_leaves_its_noise_away(
    small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(**JOINT, encoding_size=64)  # room for more canaries
    honest = audit(config, hospitals=2, canaries=12_000, trainings=5).sums
    assert honest.verdict == CONSISTENT
    assert honest.control_verdicts[ALL_BUT_ONE] == REFUTED
    monkeypatch.setattr(joint_sums, "add_noise", no_share)
    found = audit(config, hospitals=2, canaries=12_000, trainings=5)
    assert found.sums.lower_bound > found.sums.claimed
    assert found.sums.lower_bound == pytest.approx(honest.controls[ALL_BUT_ONE], rel=0.1)
    assert found.sums.verdict == REFUTED and "fresh noise" in " ".join(found.sums.failed)


@pytest.mark.long
def test_on_real_images_a_sum_of_sixteen_of_twenty_is_consistent() -> None:
    path = real_data("bloodmnist.npz")
    keys = {"data-root": str(path.parent), "honest-hospitals": 16, "min-hospitals": 18, "target-epsilon": 2.0}
    config = find("bloodmnist_joint").config({**keys, "num-server-rounds": 4, "sample-rate": 1.0})
    found = audit(config, hospitals=20, canaries=7_000, trainings=12).sums
    assert found.verdict == CONSISTENT
    assert found.claimed <= 2
