"""The keys `adversary` and `adversary-hospitals`: mistakes are explained in one line."""

from typing import Any

import pytest

from fl_ppae import cli
from fl_ppae.adversary import check_adversaries
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nobody": ({"adversary": "scaled"}, "needs adversary-hospitals"),
    "nothing": ({"adversary-hospitals": "0"}, "needs adversary, their behaviour"),
    "no number": (
        {"adversary": "scaled", "adversary-hospitals": "0,b"},
        'must be distinct hospital numbers.*"0,3"',
    ),
    "an empty number": ({"adversary": "scaled", "adversary-hospitals": "0,,1"}, "must be distinct"),
    "a negative number": ({"adversary": "scaled", "adversary-hospitals": "-1"}, "must be distinct"),
    "a number in other digits": (
        {"adversary": "scaled", "adversary-hospitals": "\u0661"},
        "must be distinct",
    ),
    "one twice": ({"adversary": "scaled", "adversary-hospitals": "1,01"}, "must be distinct"),
    "a whole number": ({"adversary": "scaled", "adversary-hospitals": 1}, "must be a valid string"),
    "another": ({"adversary": "bribe", "adversary-hospitals": "1"}, "'label-flip'"),
    "labels in a reconstruction": (
        {"adversary": "label-flip", "adversary-hospitals": "0"},
        'are not used.*use objective = "task", or share encodings',
    ),
    "a backdoor in a reconstruction": ({"adversary": "backdoor", "adversary-hospitals": "0"}, "are not used"),
    "an update that stays": (
        {"adversary": "sign-flip", "adversary-hospitals": "0", "share": "encodings"},
        'none leaves a hospital; use "updates"',
    ),
    "diagnostics of nothing": (
        {"adversary": "free-rider", "adversary-hospitals": "0", "diagnostics": True},
        "use diagnostics = false",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_explained_in_one_line(kind: str) -> None:
    values, words = MISTAKES[kind]
    with pytest.raises(UserError, match=words) as mistake:
        check_adversaries(RunConfig.from_flat(values), hospitals=3)
    assert "\n" not in str(mistake.value)


def test_spaces_between_numbers_are_fine() -> None:
    config = RunConfig.from_flat({"adversary": "scaled", "adversary-hospitals": " 3, 0"})
    assert config.adversary_numbers() == (3, 0)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_hospital_outside_the_federation_is_refused_before_the_data_is_read(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = ("-c", "adversary=scaled", "-c", "adversary-hospitals=0,3", "-c", "data-source=stand-in")
    assert cli.main([command, "mnist_iid", "--hospitals", "3", *pairs]) == cli.USER_MISTAKE
    err = capsys.readouterr().err
    assert "there is no hospital 3 among 3; they are numbered 0 to 2" in err
    assert err.count("\n") == 1


def test_audit_epsilon_refuses_an_adversary(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = ("-c", "adversary=scaled", "-c", "adversary-hospitals=0")
    assert cli.main(["audit-epsilon", "mnist_iid", *pairs]) == cli.USER_MISTAKE
    assert "honest hospital's training" in capsys.readouterr().err


def test_a_simulation_takes_both_keys_from_the_command_line() -> None:
    values = {"adversary": "label-flip", "adversary-hospitals": "0", "objective": "task"}
    assert find("bloodmnist_iid").config(values).adversary_numbers() == (0,)
