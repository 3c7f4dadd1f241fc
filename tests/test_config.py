"""The configuration's properties agree with what their names promise."""

from __future__ import annotations

from typing import get_args

import pytest

from fl_ppae.config import RunConfig


@pytest.mark.parametrize(
    ("share", "updates", "encodings"),
    [("updates", True, False), ("encodings", False, True), ("updates+encodings", True, True)],
)
def test_share_says_what_leaves_a_hospital(share: str, updates: bool, encodings: bool) -> None:
    config = RunConfig.from_flat({"share": share})
    assert (config.shares_updates, config.shares_encodings) == (updates, encodings)


def test_every_value_of_share_lets_something_leave() -> None:
    for share in get_args(RunConfig.model_fields["share"].annotation):
        config = RunConfig.from_flat({"share": share})
        assert config.shares_updates or config.shares_encodings
