"""Shadow models are trained once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacks.attacked import attacked
from support import Run

from fl_ppae.attacks import (
    membership_encoder,
    shadows,
)


def test_shadow_models_are_kept_by_what_they_depend_on(tmp_path: Path):
    made = []

    def make(value: float) -> dict[str, torch.Tensor]:
        made.append(value)
        return {"weight": torch.tensor([value])}

    first = shadows.cached("encoder", {"seed": 1}, lambda: make(1.0))
    again = shadows.cached("encoder", {"seed": 1}, lambda: make(2.0))
    assert made == [1.0] and torch.equal(first["weight"], again["weight"])
    shadows.cached("encoder", {"seed": 2}, lambda: make(3.0))
    assert made == [1.0, 3.0]
    for file in (tmp_path / "home" / "shadows").iterdir():
        file.write_bytes(file.read_bytes()[:20])  # a damaged one is made again
    shadows.cached("encoder", {"seed": 1}, lambda: make(4.0))
    assert made == [1.0, 3.0, 4.0]


def test_a_second_audit_trains_no_shadow(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    run = federate("run")
    first = attacked(run, membership_encoder.ATTACK)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(shadows, "LocalTraining", refuse)
    second = attacked(run, membership_encoder.ATTACK)
    assert [each.value for each in second.results] == [each.value for each in first.results]
    with pytest.raises(AssertionError, match="trained again"):
        attacked(federate("other", learning_rate=0.003), membership_encoder.ATTACK)


def test_quick_trains_no_model_for_comparison(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    run = federate("run")
    monkeypatch.setattr(shadows, "LocalTraining", None)
    findings = attacked(run, membership_encoder.ATTACK, shadows=0)
    assert {each.variant for each in findings.results} == {"loss threshold"}
