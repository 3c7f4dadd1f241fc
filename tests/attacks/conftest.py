"""Every audit of these tests does little work."""

from __future__ import annotations

import pytest
from attacks.audits import TINY

from fl_ppae.attacks import audited_run, inversion


@pytest.fixture(autouse=True)
def little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited_run, "QUICK", TINY)
    monkeypatch.setattr(inversion, "_DRAWN", 2)
