"""Shadow models are trained once and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from attacks.attacked import attacked
from support import Run

from fl_ppae import cli
from fl_ppae.attacks import (
    membership_encoder,
    shadows,
)
from fl_ppae.attacks.audited_run import Effort


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


@pytest.mark.parametrize(
    ("wanted", "passes", "count"), [(64, 100, 64), (64, 10_000, 20), (64, 10**7, 4), (2, 10**7, 2), (0, 1, 0)]
)
def test_large_models_get_fewer_shadows_and_the_user_is_told(wanted: int, passes: int, count: int):
    told: list[str] = []
    audited = SimpleNamespace(effort=Effort(1, 1, 1, 1, 1, 1, shadows=wanted), say=told.append)
    assert shadows.shadow_count(audited, passes) == count
    assert bool(told) == (count < wanted)
    assert all(f"{count} shadow models" in line and f"--shadows {wanted}" in line for line in told)
    asked = replace(audited.effort, shadow_passes=sys.maxsize)  # as --shadows asks for it
    assert shadows.shadow_count(SimpleNamespace(effort=asked, say=told.append), passes) == wanted


def test_shadows_come_in_pairs(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["audit", "latest", "--shadows", "3"]) == 2
    assert "--shadows 3: must be even" in capsys.readouterr().err


def test_quick_trains_no_model_for_comparison(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    run = federate("run")
    monkeypatch.setattr(shadows, "LocalTraining", None)
    findings = attacked(run, membership_encoder.ATTACK, shadows=0)
    assert {each.variant for each in findings.results} == {"loss threshold"}
