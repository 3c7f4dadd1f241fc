"""A masked round with a faulty reply is, bit for bit, the round in which that reply was lost."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faulty_replies import IN_ARRAYS, IN_CLAIM, IN_TRAINING, Fault, changed, claiming
from flwr.app import Message
from masked_federation import JOINT, LATE, Federation, Tamper, lost, replaced

from fl_ppae.messages import CONSISTENT, KEYS, LONGEST_TEXT, SHARES, TRAIN, UNMASK

OF_VECTORS = {
    kind: fault
    for kind, fault in (IN_ARRAYS | IN_CLAIM | IN_TRAINING).items()
    if kind != "weights above the limit"  # a masked number may be any
}
MODES: dict[str, dict[str, Any]] = {"masked": {"min_hospitals": 3}, "joint noise": JOINT}
DEFAULT = ("shape", "a pickle", "another hospital's name")


def forging(phase: str, fault: Fault) -> Tamper:
    return replaced(
        phase, LATE, lambda question, reply: Message(changed(reply.content, fault), reply_to=question)
    )


@cache
def weights_without(folder: Path, phase: str, mode: str) -> bytes:
    federation = Federation(folder / f"without {mode}", tamper=lost((phase, LATE)), **MODES[mode])
    assert federation.round()
    return bits(federation)


def bits(federation: Federation) -> bytes:
    return b"".join(array.tobytes() for array in federation.weights.values())


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("without")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        pytest.param(mode, kind, marks=[] if mode == "masked" and kind in DEFAULT else pytest.mark.slow)
        for mode in MODES
        for kind in OF_VECTORS
    ],
)
def test_a_faulty_masked_vector_changes_no_bit_and_is_left_out_with_a_reason(
    mode: str, kind: str, tmp_path: Path, shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    federation = Federation(tmp_path / "run", tamper=forging(TRAIN, OF_VECTORS[kind]), **MODES[mode])
    assert federation.round()
    assert bits(federation) == weights_without(shared_folder, TRAIN, mode)
    assert 0 < len(federation.reason(LATE)) <= LONGEST_TEXT
    assert federation.reports[-1].replies[LATE].status == "excluded"
    assert not Path("left_by_pickle").exists()


@pytest.mark.slow
@pytest.mark.parametrize("phase", [KEYS, SHARES, CONSISTENT, UNMASK])
def test_a_step_under_another_hospitals_name_is_as_if_it_was_lost(phase: str, tmp_path: Path) -> None:
    forged = forging(phase, claiming(hospital="hospital-0"))
    federation = Federation(tmp_path / "run", tamper=forged, min_hospitals=3)
    assert federation.round()
    assert bits(federation) == weights_without(tmp_path, phase, "masked")
    assert "it calls itself 'hospital-0'" in federation.reason(LATE)


@pytest.mark.slow
def test_the_control_that_the_lost_vector_is_not_0(tmp_path: Path, shared_folder: Path) -> None:
    federation = Federation(tmp_path / "run", min_hospitals=3)
    assert federation.round()
    assert bits(federation) != weights_without(shared_folder, TRAIN, "masked")
