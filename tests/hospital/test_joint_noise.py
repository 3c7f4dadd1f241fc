"""Rounds with joint noise: how much of it a sum holds, what it costs, and that it can't be talked away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masked_federation import STEP, Federation, lost

from fl_ppae.messages import CLAIM, CONSISTENT, TRAIN, UNMASK
from fl_ppae.privacy.events import JointGaussian

HOSPITALS, HONEST = 4, 2
JOINT: dict[str, Any] = {
    **STEP,
    "noise": "joint",
    "honest_hospitals": HONEST,
    "min_hospitals": 3,
    "sample_rate": 0.5,
    "noise_multiplier": 40.0,  # so much that the gradients drown in it
}


class Means:
    """Stands for the server's optimiser: keeps the mean gradients and changes nothing."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def step(
        self, sent: Mapping[str, np.ndarray], mean: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        self.seen.append(np.concatenate([value.reshape(-1) for value in mean.values()]))
        return sent


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = Federation(tmp_path / "joint", hospitals=HOSPITALS, **JOINT)
    made.strategy.optimiser = Means()  # type: ignore[assignment]
    return made


def noise_in(federation: Federation, took_part: int) -> float:
    """The standard deviation of the last sum / that of the noise that counts."""
    (mean,) = federation.strategy.optimiser.seen[-1:]  # type: ignore[union-attr]
    plan = federation.plans["hospital-0"]
    records = sum(plan.records for plan in list(federation.plans.values())[:took_part])
    total = mean * records * plan.sample_rate
    return float(total.std()) / (40.0 * plan.max_grad_norm)


def test_a_sum_holds_the_noise_of_all_who_took_part_and_dropouts_lower_no_charge(
    federation: Federation,
) -> None:
    assert federation.round(1)
    numbers = sum(math.prod(shape) for shape in federation.shapes.values())
    within = 5 / math.sqrt(2 * numbers)
    assert noise_in(federation, HOSPITALS) == pytest.approx(math.sqrt(HOSPITALS / HONEST), rel=within)
    federation.network.tamper = lost((TRAIN, "hospital-3"))
    assert federation.round(2)
    assert noise_in(federation, 3) == pytest.approx(math.sqrt(3 / HONEST), rel=within)
    paid = tuple(JointGaussian(40.0, HONEST, 0.5, 1, number) for number in (1, 2))
    for name in ("hospital-0", "hospital-1", "hospital-2"):
        assert federation.events(name) == paid
        assert tuple(federation.ledger.accounts[name].charges) == paid
    assert tuple(federation.ledger.accounts["hospital-3"].charges) == paid, (
        "who does not answer is charged too"
    )


@pytest.mark.parametrize("kind", [CONSISTENT, UNMASK])
def test_a_round_that_nobody_unmasks_is_charged_all_the_same(federation: Federation, kind: str) -> None:
    federation.network.tamper = lost(*((kind, f"hospital-{number}") for number in (0, 1)))
    assert not federation.round(1)
    assert federation.events("hospital-2") == (JointGaussian(40.0, HONEST, 0.5, 1, 1),)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"noise": "own", "protection": "none", "honest-hospitals": 0, "min-hospitals": 0},
        {"noise": "own"},
        {"honest-hospitals": 3},
        {"honest-hospitals": 1},
        {"min-hospitals": 4},
        {"sample-rate": 0.25},
        {"max-grad-norm": 0.002},
        {"noise": "own", "protection": "none", "honest-hospitals": 0, "min-hospitals": 0, "local-steps": 0},
    ],
    ids=str,
)
def test_no_later_configuration_changes_the_noise_or_shows_a_share_alone(
    federation: Federation, changes: dict[str, Any]
) -> None:
    assert federation.round(1)
    question, _ = federation.sent(TRAIN, "hospital-0")
    paid = federation.events("hospital-0")
    node = federation.nodes["hospital-0"]
    federation.network._contexts[node].run_config.update(changes)
    content = question.content
    content["config"]["server-round"] = 2
    reply = federation.ask("hospital-0", TRAIN, content)
    if not changes:
        assert set(reply.content) > {CLAIM}, "the control: it goes on as agreed"
        return
    assert reply.has_error() or set(reply.content) == {CLAIM}, "nothing but a refusal"
    assert federation.events("hospital-0") == paid
