"""The configuration's properties agree with what their names promise."""

from __future__ import annotations

from typing import get_args

import pytest

from fl_ppae.config import RunConfig
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.scopes import SCOPES


def choices_of(key: str) -> tuple[str, ...]:
    return get_args(RunConfig.model_fields[key].annotation)


@pytest.mark.parametrize(
    ("share", "updates", "encodings"),
    [("updates", True, False), ("encodings", False, True), ("updates+encodings", True, True)],
)
def test_share_says_what_leaves_a_hospital(share: str, updates: bool, encodings: bool) -> None:
    config = RunConfig.from_flat({"share": share})
    assert (config.shares_updates, config.shares_encodings) == (updates, encodings)


def test_every_value_of_share_lets_something_leave() -> None:
    for share in choices_of("share"):
        config = RunConfig.from_flat({"share": share})
        assert config.shares_updates or config.shares_encodings


def test_every_objective_is_in_its_table_and_every_one_in_the_table_can_be_asked_for() -> None:
    assert list(OBJECTIVES) == list(choices_of("objective"))


def test_every_scope_is_in_its_table_and_every_one_in_the_table_can_be_asked_for() -> None:
    assert list(SCOPES) == list(choices_of("dp_scope"))
