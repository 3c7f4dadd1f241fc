"""What rounds with joint noise cost a hospital, and that no later configuration talks it out of its noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from masked_federation import JOINT, LATE, Federation, lost

from fl_ppae.messages import CLAIM, CONSISTENT, TRAIN, UNMASK
from fl_ppae.privacy.events import JointGaussian


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path / "joint", **JOINT)


def test_dropouts_lower_no_charge_of_anybody(federation: Federation) -> None:
    assert federation.round(1)
    federation.network.tamper = lost((TRAIN, LATE))
    assert federation.round(2)
    paid = tuple(JointGaussian(1.5, 2, 0.5, 1, number) for number in (1, 2))
    for name in federation.nodes:
        assert tuple(federation.ledger.accounts[name].charges) == paid, "who does not answer is charged too"
        assert federation.events(name) == (paid[:1] if name == LATE else paid)


@pytest.mark.parametrize("kind", [CONSISTENT, UNMASK])
def test_a_round_that_nobody_unmasks_is_charged_all_the_same(federation: Federation, kind: str) -> None:
    federation.network.tamper = lost(*((kind, f"hospital-{number}") for number in (0, 1)))
    assert not federation.round(1)
    assert federation.events("hospital-2") == (JointGaussian(1.5, 2, 0.5, 1, 1),)


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
