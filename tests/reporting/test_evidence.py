"""A report keeps what could be measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from support import Run

from fl_ppae.reporting import evidence
from fl_ppae.runs.stored import open_run


def test_too_few_pairs_for_an_attacker_cost_the_report_nothing_else(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(federate("run").path)
    assert evidence.gather(run).inversion is not None  # the control
    monkeypatch.setattr(evidence, "_EFFORT", dataclasses.replace(evidence._EFFORT, pairs=4))
    found = evidence.gather(run)
    assert found.inversion is None
    assert "needs 5 or more" in found.missing
    assert found.label_mix is not None
