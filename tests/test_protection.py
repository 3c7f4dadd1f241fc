"""The keys of one-step rounds, secure aggregation and joint noise: mistakes are explained in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.protection import quorum_of

STEP = {"local-steps": 1, "dp-scope": "frozen-decoder"}
MASKED = {"protection": "secagg"}
JOINT = {**STEP, **MASKED, "noise": "joint", "sample-rate": 0.1, "honest-hospitals": 3, "min-hospitals": 4}

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "joint noise in the clear": ({**JOINT, "protection": "none"}, "only used with"),
    "joint noise over many steps": ({**JOINT, "local-steps": 0}, "needs local-steps = 1"),
    "joint noise at rates of their own": ({**JOINT, "sample-rate": 0.0}, "one rate for all, such as 0.1"),
    "joint noise of nobody": ({**JOINT, "honest-hospitals": 0}, "needs honest-hospitals, at least 1"),
    "joint noise on encodings": ({**JOINT, "share": "updates+encodings"}, 'needs share = "updates"'),
    "one step of a decoder": ({**STEP, "dp-scope": "autoencoder"}, 'use "frozen-decoder"$'),
    "one step with labels, nominal": (
        {**STEP, "dp-scope": "encoder", "objective": "task"},
        'use "frozen-decoder" or "autoencoder"',
    ),
    "one step without noise": ({**STEP, "dp-scope": "none"}, 'use "frozen-decoder"$'),
    "one step of encodings": ({**STEP, "share": "encodings"}, 'needs share = "updates"'),
    "one step in several passes": ({**STEP, "local-epochs": 2}, "use 1"),
    "a robust rule over masked updates": ({**MASKED, "aggregation": "median"}, 'hides; use "average"'),
    "an altered update, masked": (
        {**MASKED, "adversary": "scaled", "adversary-hospitals": "0"},
        'use protection = "none"',
    ),
    "diagnostics of masked hospitals": ({**MASKED, "diagnostics": True}, "hides; use false"),
    "masked encodings": ({**MASKED, "share": "encodings"}, 'needs share = "updates"'),
    "fewer than the honest": ({**MASKED, "min-hospitals": 2, "honest-hospitals": 3}, "at least honest"),
    "honest ones in the clear": ({"honest-hospitals": 3}, "only used with protection"),
    "a rate above 1": ({"sample-rate": 1.5}, "must be less than or equal to 1"),
    "a rate of no record": ({"sample-rate": 1e-6}, "must be 0 .* or at least 1e-05"),
    "a common head without one-step rounds": ({"classifier": "head"}, "it needs local-steps = 1"),
    "a common head that no label teaches": ({**STEP, "classifier": "head"}, 'objective = "task"'),
    "a common head that stays in its hospital": (
        {**STEP, "classifier": "head", "objective": "task"},
        'dp-scope = "autoencoder"$',
    ),
    "a head that stays in its hospital": ({"objective": "task", "trains": "head"}, "needs local-steps = 1"),
    "a head without noise": ({**STEP, "objective": "task", "trains": "head"}, 'dp-scope = "autoencoder"'),
    "a start on no images": ({"start": "public", "public-records": 0}, 'use "random", or a file'),
    "two steps": ({"local-steps": 2}, "must be less than or equal to 1"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_explained_in_one_line(kind: str) -> None:
    values, words = MISTAKES[kind]
    with pytest.raises(UserError, match=words) as mistake:
        RunConfig.from_flat(values)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    "values",
    [
        STEP,
        {**STEP, "objective": "task"},
        {**STEP, "objective": "task", "dp-scope": "autoencoder"},
        MASKED,
        {**MASKED, "adversary": "backdoor", "adversary-hospitals": "0", "objective": "task"},
        {"sample-rate": 0.1},
        JOINT,
        {**JOINT, "objective": "task", "dp-scope": "autoencoder"},
    ],
)
def test_combinations_that_work_are_accepted(values: dict[str, Any]) -> None:
    RunConfig.from_flat(values)


@pytest.mark.parametrize("objective", ["reconstruction", "task"])
@pytest.mark.parametrize("scope", SCOPES)
def test_one_step_rounds_take_formal_scopes_only(scope: str, objective: str) -> None:
    values = {**STEP, "dp-scope": scope, "objective": objective}
    shared = scope == "frozen-decoder" or objective == "task"
    if SCOPES[scope].formal and shared:
        RunConfig.from_flat(values)
    else:
        with pytest.raises(UserError, match="dp-scope"):
            RunConfig.from_flat(values)


@pytest.mark.parametrize(
    ("hospitals", "values", "words"),
    [
        (3, {"min-hospitals": 4}, "the federation has only 3"),
        (2, {"honest-hospitals": 3}, "may have only 2"),
        (5, {"min-hospitals": 2, "honest-hospitals": 2}, "use at least 4"),
        (5, {"min-hospitals": 2}, "use at least 3"),
        (1, {}, "at least 2 hospitals, not 1"),
        (5, {**JOINT, "min-hospitals": 3}, "use at least 4"),
        (20, {**JOINT, "honest-hospitals": 10, "min-hospitals": 14}, "use at least 15"),
    ],
)
def test_a_federation_too_small_for_its_quorum_is_refused(
    hospitals: int, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as mistake:
        quorum_of(RunConfig.from_flat({**MASKED, **values}), hospitals)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("hospitals", range(2, 41))
def test_no_two_lists_of_survivors_can_both_be_unmasked(hospitals: int) -> None:
    """Honest hospitals answer for one list each, colluders for both: two lists take 2 t - c honest ones."""
    accepted = 0
    for minimum, honest in pairs(hospitals):
        keys = RunConfig.from_flat({**MASKED, "min-hospitals": minimum, "honest-hospitals": honest})
        try:
            quorum = quorum_of(keys, hospitals)
        except UserError:
            colluders = minimum - honest
            assert 2 * minimum <= hospitals + colluders  # no threshold that survivors can meet would do
            continue
        accepted += 1
        assert 2 * quorum.threshold > hospitals + quorum.colluders
        assert quorum.threshold <= minimum
    assert accepted


@pytest.mark.parametrize("hospitals", range(2, 16))
def test_joint_noise_needs_nothing_but_its_honest_hospitals_in_every_list(hospitals: int) -> None:
    """Two lists are signed by t hospitals each, of which an honest one signs one, and a colluder both. One
    honest hospital is in the first list and not in the second, which has `honest` others."""
    accepted = 0
    for minimum, honest in pairs(hospitals):
        values = {**JOINT, "min-hospitals": minimum, "honest-hospitals": honest}
        try:
            quorum = quorum_of(RunConfig.from_flat(values), hospitals)
        except UserError:
            continue
        accepted += 1
        assert quorum.threshold <= minimum
        for truly_honest in range(honest + 1, hospitals + 1):
            colluding = hospitals - truly_honest
            assert 2 * (quorum.threshold - colluding) > truly_honest, "too few honest ones for two lists"
        assert quorum.threshold > hospitals - honest, "colluders alone never unmask"
    assert accepted


def test_without_that_rule_two_lists_would_be_possible() -> None:
    """The control: 20 hospitals, 14 honest in each of two lists, one of which lacks a fifteenth."""
    masked = {**MASKED, "min-hospitals": 16, "honest-hospitals": 14}
    threshold, colluding = quorum_of(RunConfig.from_flat(masked), 20).threshold, 5
    assert 2 * (threshold - colluding) <= 15
    joint = {**JOINT, "min-hospitals": 16, "honest-hospitals": 14}
    assert 2 * (quorum_of(RunConfig.from_flat(joint), 20).threshold - colluding) > 15


def pairs(hospitals: int) -> Iterator[tuple[int, int]]:
    """Every minimum and number of honest hospitals that the keys allow."""
    for minimum in range(1, hospitals + 1):
        for honest in range(1, minimum + 1):
            yield minimum, honest


def test_what_a_refusal_proposes_is_accepted() -> None:
    for kind in (MASKED, JOINT):
        for hospitals in (2, 3, 5, 10, 11):
            for minimum, honest in pairs(hospitals):
                values = {**kind, "min-hospitals": minimum, "honest-hospitals": honest}
                try:
                    quorum_of(RunConfig.from_flat(values), hospitals)
                except UserError as refusal:
                    values["min-hospitals"] = int(str(refusal).rpartition("at least ")[2])
                    quorum_of(RunConfig.from_flat(values), hospitals)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_quorum_that_cannot_be_met_is_refused_before_the_data_is_read(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = ("-c", "protection=secagg", "-c", "min-hospitals=4", "-c", "data-source=stand-in")
    assert cli.main([command, "mnist_iid", "--hospitals", "3", *pairs]) == cli.USER_MISTAKE
    err = capsys.readouterr().err
    assert "the federation has only 3 hospitals" in err
    assert err.count("\n") == 1
