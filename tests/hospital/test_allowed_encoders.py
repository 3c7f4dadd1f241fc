"""No run can make a deployed hospital import code that its operator has not named."""

import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from hospital.asked import AskedHospital

from fl_ppae.messages import CLAIM, ENCODINGS, ENROL, EVALUATE, HELLO, KEYS, TRAIN

CODE = '''"""Says that it was imported."""
from pathlib import Path

from torch import nn

Path(__file__).with_suffix(".imported").touch()


def build(image_shape, encoding_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16))
'''
KINDS = (HELLO, ENROL, TRAIN, ENCODINGS, EVALUATE, KEYS)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / f"code_{tmp_path.name}".replace("-", "_")
    path.with_suffix(".py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop(path.name, None)


def asked(folder: Path, name: str, **node: Any) -> AskedHospital:
    hospital = AskedHospital(folder, node=node, autoencoder="conv", encoding_size=0)
    keys = {**hospital.config.to_flat(), "encoder": name}
    for context in hospital.grid._contexts.values():
        context.run_config = keys
    return hospital


@pytest.mark.parametrize("allowed", [{}, {"allowed-encoders": "another.module:build"}])
def test_code_that_is_not_named_is_never_imported(module: Path, tmp_path: Path, allowed: dict) -> None:
    hospital = asked(tmp_path / "site", f"{module.name}:build", **allowed)
    for kind in KINDS:
        reply = hospital.ask(kind, RecordDict() if kind in (HELLO, ENROL) else hospital.honest(kind))
        assert reply.has_error(), kind
        assert "operator has not named in allowed-encoders" in str(reply.error.reason)
    assert not module.with_suffix(".imported").exists()
    assert hospital.events == ()


def test_code_that_is_named_is_imported(module: Path, tmp_path: Path) -> None:
    """The control."""
    name = f"{module.name}:build"
    hospital = asked(tmp_path / "site", name, **{"allowed-encoders": f"a.b:c, {name}"})
    reply = hospital.ask(HELLO, RecordDict())
    assert reply.content[CLAIM]["deployed"]
    assert module.with_suffix(".imported").exists()
