"""Each attack finds a planted leak, whatever the order of the files, and nothing where nothing leaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacks.planted import CASES, Made

from fl_ppae.attacks import gradient_inversion
from fl_ppae.attacks.registry import ATTACKS

BY_NAME = {attack.name: attack for attack in ATTACKS}
ORDERS = {"sorted by class": True, "shuffled": False}
_TAKES_LONG = {"inversion-generative"}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in _TAKES_LONG else name  # it fits a prior
    for name in CASES
]


def gain(name: str, made: Made, path: Path, *, ordered: bool) -> float:
    """By how much the attack's best result beats chance."""
    run, attack = made(path, ordered), BY_NAME[name]
    model = next(model for model in attack.threat_models if attack.missing(run, model) is None)
    rows = [
        row for row in attack.run(run, model).results if row.chance is not None and row.metric not in SMALL
    ]
    sign = -1 if CASES[name].falls else 1
    return max(sign * (row.value - row.chance) for row in rows)


SMALL = {"mse", "psnr"}  # in other units


def test_every_attack_has_a_case() -> None:
    assert list(CASES) == list(BY_NAME)


@pytest.fixture(autouse=True)
def few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_inversion, "BATCHES", (1,))
    monkeypatch.setattr(gradient_inversion, "_IMAGES", 2)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_leak_is_found_whatever_the_order_of_the_files(
    name: str, order: str, tmp_path: Path
) -> None:
    found = gain(name, CASES[name].planted, tmp_path / "run", ordered=ORDERS[order])
    assert found >= CASES[name].least


@pytest.mark.parametrize("name", NAMES)
def test_no_leak_is_found_where_none_is(name: str, tmp_path: Path) -> None:
    found = gain(name, CASES[name].sealed, tmp_path / "run", ordered=True)
    assert found <= CASES[name].most
